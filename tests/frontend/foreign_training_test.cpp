#include "frontend/onnx/foreign_training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "frontend/export/training_graph.h"
#include "ir/builder.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::HasSubstr;

// w <- w - rate * x, beside y = w * x.
struct Step {
  static Graph algorithm() {
    Builder b("train");
    const Value x = b.input("x", {DType::f32, {2}}), rate = b.input(kStepLearningRate, {DType::f32, {}});
    const Value w = b.state("w", {DType::f32, {2}}), m = b.state(Name(Role::slot, "momentum/w"), {DType::f32, {2}});
    const Value next = b.add(b.mul(m, 0.5), x);
    b.update(m, next);
    b.update(w, b.sub(w, b.mul(next, rate)));
    b.output(kLoss, b.sum_to(b.mul(w, x), {}));
    return std::move(b).finish();
  }
  static Graph inference() {
    Builder b("evaluate");
    b.output("y", b.mul(b.state("w", {DType::f32, {2}}), b.input("x", {DType::f32, {2}})));
    return std::move(b).finish();
  }
};

std::map<std::string, std::string> pairs(const google::protobuf::RepeatedPtrField<onnx::StringStringEntryProto>& list) {
  std::map<std::string, std::string> result;
  for (const auto& entry : list) result[entry.key()] = entry.value();
  return result;
}

TEST(TrainingInfo, HoldsTheStepBesideTheModel) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "model.onnx";
  export_training_info(Step::inference(), Step::algorithm(), {{"w", floats({2}, {1, 2})}}, path);
  const OnnxFile file = read_onnx_file(path);
  EXPECT_TRUE(carries_training_step(OnnxModel(file)));
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(file.bytes));
  ASSERT_EQ(model.training_info_size(), 1);
  const onnx::TrainingInfoProto& info = model.training_info(0);
  using Pairs = std::map<std::string, std::string>;
  EXPECT_EQ(pairs(info.update_binding()), (Pairs{{"w", "w_out"}, {"momentum/w", "momentum/w_out"}}));
  EXPECT_EQ(pairs(info.initialization_binding()), (Pairs{{"momentum/w", "initial/momentum/w"}}));
  // The combined graph is one: each name made once.
  std::set<std::string> names;
  const auto take = [&](const std::string& name) {
    EXPECT_TRUE(names.insert(name).second) << name << " is made twice";
  };
  for (const onnx::GraphProto* graph : {&model.graph(), &info.algorithm()}) {
    for (const auto& input : graph->input()) take(input.name());
    for (const auto& tensor : graph->initializer()) take(tensor.name());
    for (const auto& node : graph->node()) {
      for (const std::string& name : node.input()) EXPECT_TRUE(names.contains(name)) << name;
      for (const std::string& name : node.output()) take(name);
    }
  }
  const ImportedModel imported = import_model(file, {.mode = ImportMode::as_exported});
  EXPECT_EQ(imported.outputs, std::vector<std::string>{"y"});
  EXPECT_EQ(imported.weights.at("w"), floats({2}, {1, 2}));
}

TEST(TrainingInfo, OtherFilesCarryNoStep) {
  const TestModel model = TestModel().input("x", {1}).node("Relu", {"x"}, {"y"}).output("y");
  EXPECT_FALSE(carries_training_step(OnnxModel(model.file())));
}

TEST(Artefacts, AreKnownAndSaidWhatToGiveInstead) {
  const TemporaryDirectory directory;
  EXPECT_FALSE(advice_on_artefacts(directory.path()));
  for (const char* name : {"training_model.onnx", "eval_model.onnx", "checkpoint"})
    write_file_atomically(directory.path() / name, "");
  write_file_atomically(directory.path() / "optimizer_model.onnx", "com.microsoft AdamWOptimizer");
  EXPECT_THAT(advice_on_artefacts(directory.path()).value(), HasSubstr("give the model they were generated from"));
  EXPECT_THAT(advice_on_artefacts(directory.path()).value(), HasSubstr("--optimizer adamw"));
}

}  // namespace
}  // namespace halfstep::test
