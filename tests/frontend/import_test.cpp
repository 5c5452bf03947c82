// What the import decides: parameters, constants, states, names, functions, batches, fresh weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ir/interpret.h"
#include "ir/op.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const Node& leaf(const Graph& graph, const std::string& name) {
  const Value value = graph.leaf(name);
  if (!value) throw std::runtime_error("no leaf '" + name + "'");
  return graph.node(value);
}

int64_t count(const Graph& graph, std::string_view op) {
  return std::count_if(graph.nodes().begin(), graph.nodes().end(), [&](const Node& n) { return n.op->name == op; });
}

TestModel convolution() {
  TestModel model;
  return model.input("x", {1, 2, 3, 3})
      .weight("w", ramp({4, 2, 3, 3}))
      .weight("b", ramp({4}))
      .node("Conv", {"x", "w", "b"}, {"y"}, {}, "conv1")
      .output("y");
}

TEST(Import, FiltersAreStoredChannelsLast) {
  const ImportedModel model = import_model(convolution().file());
  const Node& w = leaf(model.graph, "w");
  EXPECT_EQ(w.op->name, "parameter");
  EXPECT_EQ(w.results[0].shape, (Shape{4, 3, 3, 2}));
  EXPECT_EQ(w.attributes.ints("permutation"), (Ints{0, 2, 3, 1}));
  EXPECT_EQ(model.weights.at("w"), ramp({4, 2, 3, 3}).transpose(Ints{0, 2, 3, 1}));
  EXPECT_EQ(in_onnx_layout(model.graph, model.weights).at("w"), ramp({4, 2, 3, 3}));
}

TEST(Import, AFilterThatIsAlsoReadOtherwiseKeepsItsLayout) {
  const TestModel model = convolution().node("Relu", {"w"}, {"r"}).output("r");
  EXPECT_EQ(leaf(import_model(model.file()).graph, "w").results[0].shape, (Shape{4, 2, 3, 3}));
}

TEST(Import, TransposesBetweenConvolutionAndPoolCancel) {
  const TestModel model = convolution().node("MaxPool", {"y"}, {"z"}, {{"kernel_shape", Ints{1, 1}}}).output("z");
  TestModel chain = model;
  chain.proto.mutable_graph()->mutable_output()->DeleteSubrange(0, 1);
  EXPECT_EQ(count(import_model(chain.file()).graph, "transpose"), 2) << "one in, one out";
}

TEST(Import, ScalarsAndIntegersAreConstantsOtherFloatsParameters) {
  TestModel model;
  model.input("x", {2}).weight("scale", floats({}, {2})).weight("shift", floats({2}, {1, 1}));
  model.node("Mul", {"x", "scale"}, {"a"}).node("Add", {"a", "shift"}, {"y"}).output("y");
  const ImportedModel imported = import_model(model.file());
  EXPECT_FALSE(imported.graph.leaf("scale"));
  EXPECT_EQ(leaf(imported.graph, "shift").op->name, "parameter");
  EXPECT_EQ(imported.weights.size(), 1u);
}

TEST(Import, HalfAndDoubleWeightsBecomeFloatParameters) {
  for (DType type : {DType::f16, DType::bf16, DType::f64}) {
    TestModel model;
    model.input("x", {2}).weight("w", floats({2}, {1.5, -2}).cast(type)).node("Mul", {"x", "w"}, {"y"}).output("y");
    EXPECT_EQ(import_model(model.file()).weights.at("w"), floats({2}, {1.5, -2})) << name(type);
  }
}

TEST(Import, TypedDataFieldsAreRead) {
  TestModel model;
  model.input("x", {2}).weight("w", floats({2}, {0, 0})).node("Mul", {"x", "w"}, {"y"}).output("y");
  onnx::TensorProto& w = *model.proto.mutable_graph()->mutable_initializer(0);
  w.clear_raw_data();
  w.add_float_data(3), w.add_float_data(4);
  EXPECT_EQ(import_model(model.file()).weights.at("w"), floats({2}, {3, 4}));
  w.clear_float_data();
  w.set_data_type(onnx::TensorProto::FLOAT16);
  w.add_int32_data(0x3c00), w.add_int32_data(0xc000);  // 1 and -2
  EXPECT_EQ(import_model(model.file()).weights.at("w"), floats({2}, {1, -2}));
}

TEST(Import, AnInitializerDeclaredAsInputIsNoDataInput) {
  const ImportedModel model = import_model(convolution().input("w", {4, 2, 3, 3}).file());
  EXPECT_EQ(model.inputs, std::vector<std::string>{"x"});
  EXPECT_EQ(model.outputs, std::vector<std::string>{"y"});
}

TEST(Import, FrozenWeightsAreStates) {
  const ImportedModel model = import_model(convolution().file(), {.freeze = {"b*"}});
  EXPECT_EQ(leaf(model.graph, "b").op->name, "state");
  EXPECT_EQ(leaf(model.graph, "w").op->name, "parameter");
  EXPECT_TRUE(model.graph.updates().empty());
  EXPECT_THAT(import_error(convolution(), {.freeze = {"*"}}), HasSubstr("that is not frozen"));
}

TEST(Import, OriginsAreTheNamesOfNodes) {
  TestModel model = convolution().node("Relu", {"y"}, {"z"}).node("Neg", {"z"}, {"u"}, {}, "conv1").output("u");
  const Graph graph = import_model(model.file()).graph;
  std::set<std::string> names;
  for (const Node& node : graph.nodes()) names.insert(*node.origin.name);
  EXPECT_EQ(names, (std::set<std::string>{"", "conv1", "Relu_1", "conv1_2"}));
  EXPECT_EQ(*leaf(graph, "w").origin.name, "");
}

// ---- batch norm and dropout ----

TestModel batch_norm(const AttributeList& attributes, int64_t opset = 15) {
  TestModel model(opset);
  return model.input("x", {2, 1})
      .weight("scale", floats({1}, {1}))
      .weight("bias", floats({1}, {0}))
      .weight("mean", floats({1}, {10}))
      .weight("variance", floats({1}, {4}))
      .node("BatchNormalization", {"x", "scale", "bias", "mean", "variance"}, {"y"}, attributes, "bn")
      .output("y");
}

TEST(Import, BatchNormTrainsWithRunningStatistics) {
  for (int64_t opset : {7, 9, 14, 15, 20}) {
    const ImportedModel model = import_model(batch_norm({{"epsilon", 0.0}, {"momentum", 0.75}}, opset).file());
    EXPECT_EQ(leaf(model.graph, "mean").op->name, "state");
    NamedTensors leaves = named(model.weights);
    leaves["x"] = floats({2, 1}, {1, 3});
    const InterpretResult result = interpret(model.graph, leaves);
    EXPECT_EQ(result.outputs.at("y").values, (std::vector<double>{-1, 1}));
    EXPECT_EQ(result.updates.at("mean").values, std::vector<double>{0.75 * 10 + 0.25 * 2});
    // n / (n - 1) of the batch's variance, which is 1.
    EXPECT_EQ(result.updates.at("variance").values, std::vector<double>{0.75 * 4 + 0.25 * 2});
  }
}

TEST(Import, FrozenBatchNormUsesItsStatistics) {
  const ImportedModel model = import_model(batch_norm({{"epsilon", 0.0}}).file(), {.freeze = {"mean", "variance"}});
  EXPECT_TRUE(model.graph.updates().empty());
  EXPECT_EQ(count(model.graph, "batch_norm"), 0);
  NamedTensors leaves = named(model.weights);
  leaves["x"] = floats({2, 1}, {12, 6});
  EXPECT_EQ(interpret(model.graph, leaves).outputs.at("y").values, (std::vector<double>{1, -2}));
}

// (x - mean) / sqrt(variance + epsilon) * scale + bias in two forms, and what only looks like it.
TestModel written_norm(const std::string& form) {
  TestModel model;
  model.input("x", {2, 3, 2})
      .weight("mean", ramp({3, 1}, 1))
      .weight("variance", ramp({3, 1}, 1))
      .weight("scale", ramp({3, 1}, 2))
      .weight("bias", ramp({3, 1}, 0))
      .weight("epsilon", floats({}, {1e-5}));
  if (form == "no variance") return model.node("Add", {"x", "mean"}, {"y"}).output("y");
  model.node("Add", {"variance", "epsilon"}, {"v"}).node("Sqrt", {"v"}, {"deviation"});
  if (form == "quotient")
    return model.node("Sub", {"x", "mean"}, {"centred"})
        .node("Mul", {"scale", "centred"}, {"scaled"})
        .node("Div", {"scaled", "deviation"}, {"normal"})
        .node("Add", {"normal", "bias"}, {"y"})
        .output("y");
  if (form == "uncentred") return model.node("Div", {"x", "deviation"}, {"y"}).output("y");
  model.node("Div", {"scale", "deviation"}, {"a"}).node("Mul", {"x", "a"}, {"scaled"});
  model.node("Mul", {"mean", "a"}, {"shift"}).node("Sub", {"bias", "shift"}, {"offset"});
  model.node("Add", {"scaled", "offset"}, {"y"}).output("y");
  if (form == "mean read elsewhere") model.node("Mul", {"x", "mean"}, {"z"}).output("z");
  return model;
}

TEST(Import, StatisticsOfAWrittenOutBatchNormAreNotTrained) {
  for (const char* form : {"quotient", "product and sum"}) {
    const ImportedModel model = import_model(written_norm(form).file());
    for (const char* name : {"mean", "variance"}) EXPECT_EQ(leaf(model.graph, name).op->name, "state") << form;
    for (const char* name : {"scale", "bias"}) EXPECT_EQ(leaf(model.graph, name).op->name, "parameter") << form;
    EXPECT_TRUE(model.graph.updates().empty());
    EXPECT_THAT(model.remarks, Contains(HasSubstr("2 tensors 'mean', 'variance'")));
    const ImportedModel fresh = import_model(written_norm(form).file(), {.weights = InitialWeights::fresh});
    EXPECT_EQ(fresh.weights.at("variance").values(), std::vector<double>(3, 1));
  }
  for (const char* form : {"uncentred", "mean read elsewhere"}) {
    const Graph graph = import_model(written_norm(form).file()).graph;
    EXPECT_EQ(leaf(graph, "variance").op->name, "parameter") << form;
  }
  EXPECT_EQ(leaf(import_model(written_norm("no variance").file()).graph, "mean").op->name, "parameter");
}

TEST(Import, ClassWeightsOfALossAreNotTrained) {
  TestModel model;
  model.input("x", {2, 3}).input("labels", {2}, onnx::TensorProto::INT64).weight("w", ramp({3, 3}));
  model.weight("class_weights", ramp({3}, 1)).node("MatMul", {"x", "w"}, {"logits"});
  model.node("SoftmaxCrossEntropyLoss", {"logits", "labels", "class_weights"}, {"loss"}).output("loss");
  const Graph graph = import_model(model.file()).graph;
  EXPECT_EQ(leaf(graph, "class_weights").op->name, "state");
  EXPECT_EQ(leaf(graph, "w").op->name, "parameter");
}

TEST(Import, DropoutOfTrainingDrawsFromTheStepsSeed) {
  TestModel model;
  model.input("x", {1000}).weight("w", ramp({1}, 1)).weight("ratio", floats({}, {0.25}));
  model.node("Mul", {"x", "w"}, {"a"}).node("Dropout", {"a", "ratio"}, {"y", "mask"}).output("y").output("mask");
  const ImportedModel imported = import_model(model.file());
  EXPECT_EQ(imported.inputs, std::vector<std::string>{"x"}) << "the step's inputs are not the user's";
  NamedTensors leaves = named(imported.weights);
  leaves["x"] = ramp({1000}, 3, 0);
  leaves[kStepSeed] = Tensor::scalar(DType::i64, 7);
  leaves[kStepIteration] = Tensor::scalar(DType::i32, 0);
  const InterpretResult result = interpret(imported.graph, leaves);
  int kept = 0;
  for (size_t i = 0; i < 1000; ++i) {
    const double y = result.outputs.at("y").values[i], mask = result.outputs.at("mask").values[i];
    EXPECT_EQ(y, mask != 0 ? 4 : 0);
    kept += mask != 0;
  }
  EXPECT_NEAR(kept, 750, 60);
}

// ---- functions and branches ----

TEST(Import, LocalFunctionsAreInlinedWithTheirAttributes) {
  TestModel model;
  model.proto.add_opset_import()->set_domain("local");
  onnx::FunctionProto& function = *model.proto.add_functions();
  function.set_name("Leak"), function.set_domain("local");
  function.add_input("a"), function.add_input("left_out"), function.add_output("b"), function.add_attribute("slope");
  function.add_opset_import()->set_version(17);
  onnx::NodeProto node = node_proto("LeakyRelu", {"a"}, {"b"}, {}, "inner");
  onnx::AttributeProto& alpha = *node.add_attribute();
  alpha.set_name("alpha"), alpha.set_type(onnx::AttributeProto::FLOAT), alpha.set_ref_attr_name("slope");
  *function.add_node() = node;
  model.input("x", {1}).node("local.Leak", {"x"}, {"y"}, {{"slope", 0.5}}, "call");
  model.node("local.Leak", {"y"}, {"z"}, {}, "again").output("z");
  EXPECT_EQ(evaluate(model, {{"x", floats({1}, {-200})}}).at("z"), std::vector<double>{-1}) << "0.01 by default";
  const Graph graph = import_model(model.file(), {.mode = ImportMode::as_exported}).graph;
  EXPECT_EQ(*graph.node(graph.output("z")).origin.name, "again/inner");
}

TEST(Import, ABranchSeesTheGraphAroundIt) {
  onnx::GraphProto then_branch, else_branch;
  *then_branch.add_node() = node_proto("Neg", {"x"}, {"t"});
  then_branch.add_output()->set_name("t");
  *else_branch.add_node() = node_proto("Unknown", {"x"}, {"e"});
  else_branch.add_output()->set_name("e");
  TestModel model;
  model.input("x", {2})
      .node("Size", {"x"}, {"n"})
      .node("Cast", {"n"}, {"some"}, {{"to", int64_t{onnx::TensorProto::BOOL}}});
  model.node("If", {"some"}, {"y"}, {{"then_branch", then_branch}, {"else_branch", else_branch}}).output("y");
  EXPECT_EQ(evaluate(model, {{"x", floats({2}, {1, 2})}}).at("y"), (std::vector<double>{-1, -2}));
}

// ---- the batch ----

TestModel flattened(const Ints& target, const Shape& in = {2, 3, 4}) {
  TestModel model;
  return model.input("x", in)
      .weight("shape", ints({static_cast<int64_t>(target.size())}, std::vector<double>(target.begin(), target.end())))
      .node("Reshape", {"x", "shape"}, {"y"}, {}, "view")
      .output("y");
}

Shape result_shape(const TestModel& model, int64_t batch) {
  const Graph graph = import_model(model.file(), {.batch = batch, .mode = ImportMode::as_exported}).graph;
  return graph.type(graph.output("y")).shape;
}

TEST(Batch, BakedTargetsFollowTheBatch) {
  EXPECT_EQ(result_shape(flattened({2, 12}), 5), (Shape{5, 12}));
  EXPECT_EQ(result_shape(flattened({2, -1}), 5), (Shape{5, 12}));
  EXPECT_EQ(result_shape(flattened({0, -1}), 5), (Shape{5, 12}));
  EXPECT_EQ(result_shape(flattened({6, 4}), 5), (Shape{15, 4}));
  EXPECT_EQ(result_shape(flattened({1, 2, 12}), 5), (Shape{1, 5, 12}));
  EXPECT_EQ(result_shape(flattened({-1}), 5), (Shape{60}));
  EXPECT_EQ(result_shape(flattened({1, 12}, {1, 3, 4}), 5), (Shape{5, 12}));
  EXPECT_EQ(result_shape(flattened({12}, {1, 3, 4}), 5), (Shape{60}));
  EXPECT_EQ(result_shape(flattened({1, 1, 12}, {1, 3, 4}), 5), (Shape{5, 1, 12}));
}

TEST(Batch, ATargetThatMixesTheRowsIsRefusedByName) {
  const TestModel model = flattened({3, 8});
  const std::string error = import_error(model, {.batch = 5, .mode = ImportMode::as_exported});
  EXPECT_THAT(error, HasSubstr("node Reshape 'view': its target [3,8] was exported for [2,3,4]"));
  EXPECT_THAT(error, HasSubstr("the model was exported at x=[2,3,4] and is read at x=[5,3,4]"));
  EXPECT_EQ(result_shape(model, 2), (Shape{3, 8})) << "at the exported batch it is what it is";
}

TEST(Batch, ShapeArithmeticFollowsByItself) {
  TestModel model;
  model.input("x", {-1, 3, 4}).node("Shape", {"x"}, {"s"}, {{"end", int64_t{1}}});
  model.node("Constant", {}, {"rest"}, {{"value_ints", Ints{-1}}})
      .node("Concat", {"s", "rest"}, {"t"}, {{"axis", int64_t{0}}});
  model.node("Reshape", {"x", "t"}, {"y"}).output("y");
  EXPECT_EQ(result_shape(model, 5), (Shape{5, 12}));
}

TEST(Batch, CopiesMadeForTheBatchFollowIt) {
  TestModel model;
  model.input("x", {2, 3, 1}).weight("token", ramp({1, 1, 1})).weight("shape", ints({3}, {2, 1, 1}));
  model.node("Expand", {"token", "shape"}, {"tokens"})
      .node("Concat", {"tokens", "x"}, {"y"}, {{"axis", int64_t{1}}})
      .output("y");
  EXPECT_EQ(result_shape(model, 5), (Shape{5, 4, 1}));
}

TEST(Batch, RemarkSaysSo) {
  const ImportedModel model = import_model(flattened({2, 12}).file(), {.batch = 5, .mode = ImportMode::as_exported});
  EXPECT_THAT(model.remarks, Contains("the model was exported at x=[2,3,4] and is read at x=[5,3,4]"));
}

// ---- fresh weights ----

TEST(FreshWeights, FollowTheirOperatorsAndTheSeed) {
  TestModel model;
  model.input("x", {1, 4, 6, 6});
  model.weight("w", ramp({64, 4, 5, 5}))
      .weight("b", ramp({64}))
      .weight("scale", ramp({64}))
      .weight("shift", ramp({64}));
  model.weight("mean", ramp({64})).weight("variance", ramp({64}));
  model.node("Conv", {"x", "w", "b"}, {"y"})
      .node("BatchNormalization", {"y", "scale", "shift", "mean", "variance"}, {"z"})
      .output("z");
  const auto weights = [&](uint64_t seed) {
    return import_model(model.file(), {.weights = InitialWeights::fresh, .seed = seed}).weights;
  };
  const FileTensors first = weights(1);
  EXPECT_EQ(first, weights(1));
  EXPECT_NE(first.at("w"), weights(2).at("w"));
  double largest = 0, square = 0;
  for (double v : first.at("w").values()) largest = std::max(largest, std::abs(v)), square += v * v;
  EXPECT_LE(largest, 0.1) << "1 / sqrt(4 * 5 * 5)";
  EXPECT_NEAR(square / 6400, 0.01 / 3, 0.0002);
  for (double v : first.at("b").values()) EXPECT_LE(std::abs(v), 0.1);
  EXPECT_EQ(first.at("scale"), ramp({64}, 1, 0));
  EXPECT_EQ(first.at("shift"), ramp({64}, 0, 0));
  EXPECT_EQ(first.at("mean"), ramp({64}, 0, 0));
  EXPECT_EQ(first.at("variance"), ramp({64}, 1, 0));
}

TEST(FreshWeights, LayersThatAreWrittenOutStartAsTheirLayers) {
  TestModel model;
  model.input("x", {2, 4})
      .weight("w", ramp({4, 5}))
      .weight("b", ramp({5}))
      .weight("g", ramp({5}))
      .weight("s", ramp({5}));
  model.node("MatMul", {"x", "w"}, {"p"}).node("Add", {"p", "b"}, {"q"}).node("Mul", {"q", "g"}, {"r"});
  model.node("Add", {"r", "s"}, {"y"}).output("y");
  const FileTensors weights = import_model(model.file(), {.weights = InitialWeights::fresh}).weights;
  EXPECT_EQ(weights.at("g"), ramp({5}, 1, 0));
  EXPECT_EQ(weights.at("s"), ramp({5}, 0, 0));
  EXPECT_NE(weights.at("b"), ramp({5}, 0, 0));
  for (double v : weights.at("b").values()) EXPECT_LE(std::abs(v), 0.5);
}

}  // namespace
}  // namespace halfstep::test
