// Parameters that an exporter merged or removed for their values: found, told from tied ones, and put back.
#include "frontend/repairs/merged_parameters.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/file.h"
#include "frontend/diagnose/diagnostics.h"
#include "frontend/export/export.h"
#include "frontend/export/restore_parameters.h"
#include "frontend/import/import_model.h"
#include "frontend/repairs/read_model.h"
#include "frontend/repairs/removed_biases.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Tensor vector_of(int64_t size, double value) {
  return floats({size}, std::vector<double>(static_cast<size_t>(size), value));
}

// What every parameter of the file is read as: node and operand by initializer.
std::map<std::string, std::vector<std::string>> uses(const onnx::ModelProto& model) {
  std::map<std::string, std::vector<std::string>> result;
  for (const onnx::TensorProto& tensor : model.graph().initializer()) result[tensor.name()];
  for (int i = 0; i < model.graph().node_size(); ++i)
    for (int k = 0; k < model.graph().node(i).input_size(); ++k)
      if (const auto found = result.find(model.graph().node(i).input(k)); found != result.end())
        found->second.push_back(node_name(model.graph().node(i), i) + " " + std::to_string(k));
  std::erase_if(result, [](const auto& entry) { return entry.second.empty(); });
  return result;
}

std::vector<std::vector<std::string>> values(const std::map<std::string, std::vector<std::string>>& uses) {
  std::vector<std::vector<std::string>> result;
  for (const auto& [name, nodes] : uses) result.push_back(nodes);
  std::ranges::sort(result);
  return result;
}

bool is_parameter(const std::string& name) { return name.ends_with("weight") || name.ends_with("bias"); }

// The model as if it had been exported when it was made, with norms of ones and zeros and with biases of zeros: what is
// equal is merged, and products lose theirs.
onnx::ModelProto merged_by_the_exporter(onnx::ModelProto model) {
  onnx::GraphProto& graph = *model.mutable_graph();
  for (int i = 0; i < graph.node_size(); ++i)
    if (onnx::NodeProto& node = *graph.mutable_node(i); node.op_type() == "Gemm" && node.input_size() == 3) {
      node.mutable_input()->RemoveLast();
      node.set_name("node_Gemm_" + std::to_string(i));
    }
  std::map<std::pair<int64_t, bool>, std::string> firsts;  // by size and whether it is a bias
  std::map<std::string, std::string> kept;
  for (onnx::TensorProto& tensor : *graph.mutable_initializer()) {
    if (tensor.dims_size() != 1 || !is_parameter(tensor.name())) continue;
    const bool bias = tensor.name().ends_with("bias");
    onnx::TensorProto fresh = tensor_proto(tensor.name(), vector_of(tensor.dims(0), bias ? 0 : 1));
    tensor.Swap(&fresh);
    kept[tensor.name()] = firsts.emplace(std::pair(tensor.dims(0), bias), tensor.name()).first->second;
  }
  for (onnx::NodeProto& node : *graph.mutable_node())
    for (std::string& input : *node.mutable_input())
      if (const auto found = kept.find(input); found != kept.end()) input = found->second;
  const std::map<std::string, std::vector<std::string>> read = uses(model);
  for (int i = graph.initializer_size(); i-- > 0;)
    if (!read.contains(graph.initializer(i).name())) graph.mutable_initializer()->DeleteSubrange(i, 1);
  return model;
}

OnnxFile file_of(const onnx::ModelProto& model) { return {"model.onnx", model.SerializeAsString(), "."}; }

class MergedFamilies : public testing::TestWithParam<const char*> {};

TEST_P(MergedFamilies, GetEveryParameterBack) {
  const auto path = std::filesystem::path(HALFSTEP_SOURCE_DIR) / "models/families" / GetParam();
  const onnx::ModelProto original = parse_model(read_onnx_file(path)), merged = merged_by_the_exporter(original);
  ASSERT_LT(uses(merged).size(), uses(original).size());
  const onnx::ModelProto restored = restore_parameters(read_model(file_of(merged))).proto();
  // Names of products changed with their biases.
  ASSERT_EQ(restored.graph().node_size(), original.graph().node_size());
  onnx::ModelProto renamed = restored;
  for (int i = 0; i < original.graph().node_size(); ++i)
    renamed.mutable_graph()->mutable_node(i)->set_name(original.graph().node(i).name());
  EXPECT_EQ(values(uses(renamed)), values(uses(original)));
  EXPECT_TRUE(check_model(read_model(file_of(restored))).problems.empty());
}

INSTANTIATE_TEST_SUITE_P(, MergedFamilies,
                         testing::Values("bert.dynamo.onnx", "vit.dynamo.onnx", "gpt2.dynamo23.onnx",
                                         "distilbert.dynamo.onnx", "convnext.dynamo.onnx", "llama.dynamo.onnx"),
                         [](const auto& info) {
                           const std::string name = info.param;
                           return name.substr(0, name.find('.'));
                         });

// A layer of product, bias and norm, whose vectors are all called "zeros" and "ones".
void add_layer(TestModel& model, const std::string& name, const std::string& x, const std::string& matrix) {
  model.node("MatMul", {x, matrix}, {name + "_product"}, {}, name + ".product");
  model.node("Add", {name + "_product", "zeros"}, {name + "_sum"}, {}, name + ".sum");
  model.node("LayerNormalization", {name + "_sum", "ones", "zeros"}, {name}, {{"axis", int64_t{-1}}}, name + ".norm");
}

TestModel two_layers(const std::string& second_matrix) {
  TestModel model;
  model.input("x", {3, 4}).weight("zeros", vector_of(4, 0)).weight("ones", vector_of(4, 1));
  model.weight("v", ramp({4, 4}, -1, 0.1)).weight("w", ramp({4, 4}, 1, -0.2));
  add_layer(model, "a", "x", "v");
  add_layer(model, "b", "a", second_matrix);
  return model.output("b");
}

// Initializers that are read, with their uses.
std::vector<std::string> parameters(const OnnxModel& model) {
  std::vector<std::string> names;
  for (const auto& [name, nodes] : uses(model.proto())) {
    std::string text = name + ":";
    for (const std::string& node : nodes) text += " " + node;
    names.push_back(text);
  }
  return names;
}

TEST(MergedParameters, OfTwoLayersComeBackUnderTheirNodes) {
  EXPECT_THAT(
      parameters(restore_parameters(read_model(two_layers("w").file()))),
      ElementsAre("a.norm.bias: a.norm 2", "b.norm.bias: b.norm 2", "b.norm.weight: b.norm 1", "b.sum.bias: b.sum 1",
                  "ones: a.norm 1", "v: a.product 1", "w: b.product 1", "zeros: a.sum 1"));
}

TEST(MergedParameters, OfALayerThatIsCalledTwiceAreTied) {
  EXPECT_THAT(parameters(restore_parameters(read_model(two_layers("v").file()))),
              ElementsAre("a.norm.bias: a.norm 2 b.norm 2", "ones: a.norm 1 b.norm 1", "v: a.product 1 b.product 1",
                          "zeros: a.sum 1 b.sum 1"));
}

TEST(MergedParameters, AreTiedThroughWhatTheirMatricesAreTiedTo) {
  TestModel model;
  model.input("x", {3, 32}).weight("zeros", vector_of(32, 0)).weight("ones", vector_of(32, 1));
  model.weight("v", ramp({32, 32}, -1, 0.001)).weight("val_2", ramp({32, 32}, -1, 0.001));
  add_layer(model, "a", "x", "v");
  add_layer(model, "b", "a", "val_2");
  model.output("b");
  EXPECT_THAT(parameters(restore_parameters(read_model(model.file()))),
              testing::Contains("a.norm.bias: a.norm 2 b.norm 2"));
}

// Norms of one value before two products, as in parallel attention and feed-forward.
TEST(MergedParameters, OfParallelNormsAreTwo) {
  TestModel model;
  model.input("x", {3, 4}).weight("ones", vector_of(4, 1)).weight("u", ramp({4, 4}, 0, 0.1));
  model.weight("v", ramp({4, 4}, -1, 0.1)).weight("w", ramp({4, 4}, 1, -0.2));
  model.node("MatMul", {"x", "u"}, {"h"}, {}, "h");
  for (const std::string name : {"v", "w"}) {
    model.node("RMSNormalization", {"h", "ones"}, {name + "_norm"}, {}, name + ".norm");
    model.node("MatMul", {name + "_norm", name}, {name + "_out"}, {}, name + ".product");
  }
  model.node("Add", {"v_out", "w_out"}, {"y"}).output("y");
  EXPECT_THAT(parameters(restore_parameters(read_model(model.file()))), testing::Contains("w.norm.weight: w.norm 1"));
}

// A fresh batch norm's shift and mean are zeros.
TEST(MergedParameters, WithRunningStatisticsAreRefusedUntilTheyAreApart) {
  TestModel model;
  model.input("x", {2, 4, 3, 3}).weight("zeros", vector_of(4, 0)).weight("ones", vector_of(4, 1));
  model.node("BatchNormalization", {"x", "ones", "zeros", "zeros", "ones"}, {"h"}, {}, "a.norm");
  model.node("BatchNormalization", {"h", "ones", "zeros", "zeros", "ones"}, {"y"}, {}, "b.norm").output("y");
  EXPECT_THAT(import_error(model, {}), HasSubstr("'zeros' is both a parameter and a running statistic"));
  const ImportedModel restored = import_model(restore_parameters(read_model(model.file())));
  EXPECT_EQ(restored.graph.updates().size(), 4u);
  EXPECT_TRUE(restored.weights.contains("b.norm.running_mean"));
}

void add_note(onnx::NodeProto& node, const std::string& key, const std::string& value) {
  constexpr int kMetadataField = 9;
  onnx::StringStringEntryProto entry;
  entry.set_key("pkg.torch.onnx." + key), entry.set_value(value);
  node.mutable_unknown_fields()->AddLengthDelimited(kMetadataField, entry.SerializeAsString());
}

void set_module(onnx::NodeProto& node, const std::string& module) {
  add_note(node, "name_scopes", "['', 'outer', '" + module + "', 'value']");
}

TEST(MergedParameters, BelongToTheModulesThatTheExporterWroteDown) {
  TestModel tied = two_layers("w"), apart = two_layers("v");
  for (int i = 0; i < tied.proto.graph().node_size(); ++i) {
    const bool second = i >= 3;
    const std::string part = i % 3 == 2 ? "norm" : "linear";
    set_module(*tied.proto.mutable_graph()->mutable_node(i), "outer." + part);
    set_module(*apart.proto.mutable_graph()->mutable_node(i), "outer." + std::to_string(second) + "." + part);
  }
  EXPECT_THAT(parameters(restore_parameters(read_model(tied.file()))),
              ElementsAre("ones: a.norm 1 b.norm 1", "outer.linear.bias: b.sum 1", "outer.norm.bias: a.norm 2 b.norm 2",
                          "v: a.product 1", "w: b.product 1", "zeros: a.sum 1"));
  EXPECT_THAT(parameters(restore_parameters(read_model(apart.file()))),
              ElementsAre("ones: a.norm 1", "outer.0.norm.bias: a.norm 2", "outer.1.linear.bias: b.sum 1",
                          "outer.1.norm.bias: b.norm 2", "outer.1.norm.weight: b.norm 1", "v: a.product 1 b.product 1",
                          "zeros: a.sum 1"));
}

TEST(MergedParameters, AreNotThoseOfSeveralValuesNorMatricesNorConstants) {
  TestModel model;
  model.input("x", {3, 4}).weight("b", ramp({4})).weight("m", floats({3, 4}, std::vector<double>(12, 1)));
  model.weight("val_1", vector_of(4, 1));
  model.node("Add", {"x", "b"}, {"p"}).node("Add", {"p", "b"}, {"q"}).node("Add", {"q", "m"}, {"r"});
  model.node("Mul", {"r", "m"}, {"s"})
      .node("Mul", {"s", "val_1"}, {"t"})
      .node("Mul", {"t", "val_1"}, {"y"})
      .output("y");
  EXPECT_THAT(find_merged_parameters(model.proto.graph(), TensorReader("."), {}), IsEmpty());
  EXPECT_THROW(restore_parameters(read_model(model.file())), Error);
}

TEST(MergedParameters, AreSeenInTheirUsesWhereTheDataIsMissing) {
  TestModel model = two_layers("w");
  model.weight("bias", ramp({8}));
  model.node("Slice", {"bias", "begin", "end"}, {"first"}).node("Add", {"b", "first"}, {"c"});
  model.node("Add", {"c", "bias"}, {"d"}).node("Add", {"d", "bias"}, {"e"});
  for (onnx::TensorProto& tensor : *model.proto.mutable_graph()->mutable_initializer()) {
    tensor.clear_raw_data();
    tensor.clear_float_data();
    tensor.set_data_location(onnx::TensorProto::EXTERNAL);
    onnx::StringStringEntryProto& location = *tensor.add_external_data();
    location.set_key("location"), location.set_value("nowhere.data");
  }
  std::vector<std::string> names;
  for (const SharedInitializer& shared : find_merged_parameters(model.proto.graph(), TensorReader("."), {}))
    names.push_back(shared.tensor->name());
  EXPECT_THAT(names, ElementsAre("zeros", "ones")) << "'bias' is one, of which a part is read too";
}

TEST(MergedParameters, RestoredComputeTheSameAndAreExportedEach) {
  const OnnxModel merged = read_model(two_layers("w").file()), restored = restore_parameters(merged);
  const auto run = [](const OnnxModel& file) {
    const ImportedModel model = import_model(file, {.mode = ImportMode::as_exported});
    NamedTensors leaves = named(model.weights);
    leaves["x"] = ramp({3, 4}, -1, 0.3);
    return interpret(model.graph, leaves).outputs.at("b").values;
  };
  EXPECT_EQ(run(restored), run(merged));
  FileTensors trained = import_model(restored).weights;
  ASSERT_TRUE(trained.contains("a.norm.bias"));
  trained["a.norm.bias"] = vector_of(4, 3);
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "restored.onnx";
  export_model(restored, trained, path);
  const FileTensors again = import_model(read_onnx_file(path)).weights;
  EXPECT_EQ(again.at("a.norm.bias").values(), std::vector<double>(4, 3));
  EXPECT_EQ(again.at("zeros").values(), std::vector<double>(4, 0));
}

const Finding* finding(const Diagnostics& ready, const std::string& kind) {
  const auto found = std::ranges::find(ready.findings, kind, &Finding::kind);
  return found == ready.findings.end() ? nullptr : &*found;
}

TEST(MergedParameters, AreReportedWithARemedy) {
  const OnnxModel merged = read_model(two_layers("w").file());
  const Diagnostics ready = check_model(merged);
  ASSERT_NE(finding(ready, "merged weights"), nullptr);
  EXPECT_THAT(finding(ready, "merged weights")->text,
              HasSubstr("6 parameters of equal values became 2 initializers at export"));
  EXPECT_THAT(finding(ready, "merged weights")->remedy, HasSubstr("--restore-parameters"));
  EXPECT_EQ(finding(ready, "shared weights"), nullptr);
  EXPECT_EQ(finding(check_model(restore_parameters(merged)), "merged weights"), nullptr);
}

TEST(RemovedBiases, AreKnownOfProductsThatTheExporterWroteAnew) {
  TestModel model;
  model.proto.set_producer_name("pytorch");
  model.input("x", {2, 3}).weight("head.weight", ramp({5, 3})).weight("val_1", ramp({5, 4})).weight("w", ramp({4, 2}));
  const AttributeList transposed{{"transB", int64_t{1}}};
  model.node("Gemm", {"x", "head.weight"}, {"linear"}, transposed, "node_Gemm_12");
  model.node("Gemm", {"linear", "val_1"}, {"linear_1"}, {}, "node_Gemm_13");
  model.node("Gemm", {"linear_1", "w"}, {"y"}, {}, "node_linear_2").output("y");
  EXPECT_THAT(finding(check_model(read_model(model.file())), "removed biases")->text,
              HasSubstr("2 nodes lost a bias of zeros at export: 'node_Gemm_12', 'node_Gemm_13'"));
  const ImportedModel restored = import_model(restore_parameters(read_model(model.file())));
  EXPECT_EQ(restored.weights.at("head.bias").values(), std::vector<double>(5, 0));
  EXPECT_EQ(restored.weights.at("node_Gemm_13.bias").values(), std::vector<double>(4, 0));
  EXPECT_EQ(restored.weights.size(), 5u);
  model.proto.set_producer_name("another");
  EXPECT_THAT(find_removed_biases(model.proto), IsEmpty());
}

TEST(RemovedBiases, OfConvolutionsAreKnownFromTheCall) {
  TestModel model;
  model.proto.set_producer_name("pytorch");
  model.input("x", {2, 3, 4, 4}).weight("a.weight", ramp({5, 3, 1, 1})).weight("b.weight", ramp({4, 5, 1, 1}));
  model.weight("c.weight", ramp({4, 3, 2, 2}));
  model.node("Conv", {"x", "a.weight"}, {"conv2d"}, {}, "node_Conv_7");
  model.node("Conv", {"conv2d", "b.weight"}, {"conv2d_1"}, {}, "node_Conv_8");
  model.node("ConvTranspose", {"conv2d_1", "c.weight"}, {"y"}, {{"group", int64_t{2}}}, "node_ConvTranspose_9");
  model.output("y");
  const auto call = [&](int node, const std::string& function, const std::string& bias) {
    add_note(*model.proto.mutable_graph()->mutable_node(node), "fx_node",
             "%y : [num_users=1] = call_function[target=torch.ops.aten." + function + "](args = (%x, %w, " + bias +
                 ", [1, 1]), kwargs = {})");
  };
  call(0, "conv2d.default", "%p_a_bias");
  call(1, "conv2d.default", "None");
  call(2, "conv_transpose2d.input", "%p_c_bias");
  const ImportedModel restored = import_model(restore_parameters(read_model(model.file())));
  EXPECT_EQ(restored.weights.at("a.bias").values(), std::vector<double>(5, 0));
  EXPECT_EQ(restored.weights.at("c.bias").values(), std::vector<double>(6, 0));
  EXPECT_FALSE(restored.weights.contains("b.bias"));
}

}  // namespace
}  // namespace halfstep::test
