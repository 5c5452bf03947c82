// What `check` tells about a file: how it was exported, what trains, and everything that is missing at once.
#include "frontend/diagnose/diagnostics.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/file.h"
#include "frontend/export/export.h"
#include "frontend/import/import_model.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/repairs/folded_batch_norm.h"
#include "frontend/repairs/read_model.h"
#include "ir/interpret.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using testing::Contains;
using testing::HasSubstr;

// Two convolutions; the first took in a batch norm, as the name of its result tells.
TestModel folded() {
  TestModel model;
  model.input("x", {2, 3, 5, 5}).weight("w", ramp({4, 3, 3, 3}, -1, 0.01)).weight("b", ramp({4}));
  model.weight("val_7", ramp({2, 4, 1, 1}));
  model.node("Conv", {"x", "w", "b"}, {"getitem"}, {}, "c1").node("Relu", {"getitem"}, {"r"});
  model.node("Conv", {"r", "val_7"}, {"y"}, {}, "c2").output("y");
  return model;
}

const Finding* finding(const Diagnostics& ready, const std::string& kind) {
  for (const Finding& f : ready.findings)
    if (f.kind == kind) return &f;
  return nullptr;
}

TEST(Diagnostics, CountsOperatorsAndWeights) {
  const Diagnostics ready = check_model(read_model(folded().file()), {.freeze = {"val_*"}});
  EXPECT_TRUE(ready.problems.empty());
  EXPECT_EQ(ready.operators, (std::map<std::string, int64_t>{{"Conv", 2}, {"Relu", 1}}));
  EXPECT_EQ(ready.trainable.elements, 4 * 27 + 4);
  EXPECT_EQ(ready.frozen.tensors, 1);
  EXPECT_EQ(ready.inputs, (std::map<std::string, std::string>{{"x", "f32[2,3,5,5]"}}));
}

TEST(Diagnostics, TellsHowTheFileWasExported) {
  const Diagnostics ready = check_model(read_model(folded().file()));
  ASSERT_NE(finding(ready, "folded batch norms"), nullptr);
  EXPECT_THAT(finding(ready, "folded batch norms")->text, HasSubstr("1 layer took in a batch norm"));
  EXPECT_THAT(finding(ready, "folded batch norms")->text, HasSubstr("'c1'"));
  EXPECT_THAT(finding(ready, "renamed weights")->text, HasSubstr("'val_7'"));
  EXPECT_THAT(finding(ready, "baked-in sizes")->text, HasSubstr("'x' was exported as f32[2,3,5,5]"));
  EXPECT_NE(finding(ready, "missing dropout"), nullptr);
  EXPECT_EQ(finding(ready, "shared weights"), nullptr);
}

TEST(Diagnostics, NamesWeightsThatSeveralNodesRead) {
  TestModel model;
  model.input("x", {2, 4}).weight("w", ramp({4, 4}));
  model.node("MatMul", {"x", "w"}, {"h"}, {}, "a").node("MatMul", {"h", "w"}, {"y"}, {}, "b").output("y");
  const Diagnostics ready = check_model(read_model(model.file()));
  ASSERT_NE(finding(ready, "shared weights"), nullptr);
  EXPECT_THAT(finding(ready, "shared weights")->text, HasSubstr("'w' (2 nodes)"));
}

TEST(Diagnostics, ReportsMissingOperatorsAndGradientsTogether) {
  TestModel model;
  model.input("x", {1, 2, 4}).weight("w", ramp({4, 4})).node("MatMul", {"x", "w"}, {"h"}, {}, "a");
  model.node("MaxPool", {"h"}, {"m"}, {{"kernel_shape", Ints{2}}}, "pool").node("Mul", {"m", "m"}, {"s"});
  model.node("ai.onnx.preview.training.Gradient", {"h"}, {"g"},
             {{"xs", std::vector<std::string>{"h"}}, {"y", std::string("s")}});
  model.node("Foo", {"g"}, {"p"}, {}, "foo").node("Bar", {"p"}, {"y"}, {}, "bar").output("y");
  const std::vector<std::string> problems = check_model(read_model(model.file())).problems;
  EXPECT_THAT(problems, Contains(HasSubstr("Foo")));
  EXPECT_THAT(problems, Contains(HasSubstr("Bar")));
  EXPECT_THAT(problems, Contains(testing::AllOf(HasSubstr("has no gradient"), HasSubstr("pool"))));
}

TEST(Diagnostics, NamesParametersThatNoGradientReaches) {
  TestModel model;
  model.input("x", {2, 4}).weight("w", ramp({4, 4})).weight("v", ramp({4, 4})).weight("u", ramp({2, 4}));
  model.node("MatMul", {"x", "w"}, {"h"}).node("Floor", {"h"}, {"f"}).node("MatMul", {"f", "v"}, {"p"});
  model.node("Less", {"u", "x"}, {"less"}).node("Where", {"less", "p", "x"}, {"y"}).output("y");
  EXPECT_THAT(check_model(read_model(model.file())).remarks,
              Contains(testing::AllOf(HasSubstr("no gradient reaches"), testing::EndsWith(": 'w', 'u'"))));
}

void expect_same_inference(const OnnxModel& file, const OnnxModel& with, const Shape& x) {
  const ImportedModel before = import_model(file, {.mode = ImportMode::as_exported}),
                      after = import_model(with, {.mode = ImportMode::as_exported});
  const auto run = [&](const ImportedModel& model) {
    NamedTensors leaves = named(model.weights);
    leaves["x"] = ramp(x, -1, 0.02);
    return interpret(model.graph, leaves).outputs.at("y").values;
  };
  const std::vector<double> a = run(before), b = run(after);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-6 * (1 + std::abs(a[i])));
}

TEST(BatchNorms, ComeBackAsIdentitiesOfInference) {
  const OnnxModel file = read_model(folded().file());
  for (const double epsilon : {1e-5, 1e-3, 0.1})
    expect_same_inference(file, insert_batch_norms(file, {.epsilon = epsilon}), {2, 3, 5, 5});
  const ImportedModel trained = import_model(insert_batch_norms(file));
  EXPECT_EQ(trained.graph.updates().size(), 2u) << "running mean and variance";
  EXPECT_TRUE(trained.weights.contains("c1.bn.scale"));
  EXPECT_TRUE(trained.weights.contains("b")) << "the convolution's bias is the batch norm's";
  EXPECT_FALSE(trained.weights.contains("c2.bn.scale"));
}

TEST(BatchNorms, ComeBackWhereTheFileOrTheUserSaysSo) {
  TestModel model;
  model.input("x", {2, 3}).weight("w", ramp({3, 4})).weight("fused_bn_b", ramp({4}));
  model.weight("v", ramp({5, 4})).weight("c", ramp({5}));
  model.node("Gemm", {"x", "w", "fused_bn_b"}, {"h"}, {}, "fc1")
      .node("Gemm", {"h", "v", "c"}, {"y"}, {{"transB", int64_t{1}}}, "fc2");
  model.output("y");
  const OnnxModel file = read_model(model.file());
  EXPECT_TRUE(import_model(insert_batch_norms(file)).weights.contains("fc1.bn.scale"));
  const OnnxModel named = insert_batch_norms(file, {.after = {"*2"}});
  expect_same_inference(file, named, {2, 3});
  EXPECT_EQ(import_model(named).weights.at("fc2.bn.scale").type.shape, Shape{5});
  EXPECT_FALSE(import_model(named).weights.contains("fc1.bn.scale"));
  EXPECT_THAT([&] { insert_batch_norms(file, {.after = {"fc3"}}); },
              testing::ThrowsMessage<Error>(HasSubstr("is called 'fc3'; did you mean 'fc")));
}

TEST(BatchNorms, RefuseWhatTrainingNeedsSeveralValuesFor) {
  TestModel model;
  model.input("x", {1, 3, 1, 1});
  for (const char* name : {"scale", "bias", "mean", "variance"}) model.weight(name, ramp({3}, 1, 0.1));
  model.node("BatchNormalization", {"x", "scale", "bias", "mean", "variance"}, {"y"}, {}, "bn").output("y");
  EXPECT_THAT([&] { import_model(model.file()); },
              testing::ThrowsMessage<Error>(HasSubstr("node BatchNormalization 'bn': its input f32[1,3,1,1] holds one "
                                                      "value a channel")));
  EXPECT_NO_THROW(import_model(model.file(), {.batch = 2}));
  EXPECT_NO_THROW(import_model(model.file(), {.mode = ImportMode::as_exported}));
}

TEST(BatchNorms, AreNotMadeUp) {
  TestModel model;
  model.input("x", {1, 3, 5, 5}).weight("w", ramp({4, 3, 3, 3})).node("Conv", {"x", "w"}, {"y"}).output("y");
  EXPECT_THROW(insert_batch_norms(read_model(model.file())), Error);
}

}  // namespace
}  // namespace halfstep::test
