// The runner of the pipeline, on a small LeNet as a frontend imports it.
#include "passes/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "ir/text.h"
#include "tests/passes/stepper.h"
#include "tests/random_tensors.h"
#include "tests/slots.h"

namespace halfstep {
namespace {

constexpr const char* kLeNet = R"(
graph lenet {
  %0 = input() {name="images"} : f32[8,1,8,8]
  %1 = parameter() {name="c1.weight", permutation=[0,2,3,1]} : f32[4,3,3,1]
  %2 = parameter() {name="c1.bias"} : f32[4]
  %3 = transpose(%0) {permutation=[0,2,3,1]} @"conv1"
  %4 = convolution(%3, %1) {pads_begin=[1,1], pads_end=[1,1]} @"conv1"
  %5 = reshape(%2) {shape=[1,1,1,4]} @"conv1"
  %6 = broadcast(%5) {shape=[8,8,8,4]} @"conv1"
  %7 = add(%4, %6) @"conv1"
  %8 = transpose(%7) {permutation=[0,3,1,2]} @"conv1"
  %9 = relu(%8) @"relu1"
  %10 = transpose(%9) {permutation=[0,2,3,1]} @"pool1"
  %11, %12 = max_pool(%10) {window=[2,2], strides=[2,2]} @"pool1"
  %13 = transpose(%11) {permutation=[0,3,1,2]} @"pool1"
  %14 = reshape(%13) {shape=[8,64]} @"flatten"
  %15 = parameter() {name="fc.weight"} : f32[3,64]
  %16 = matmul(%14, %15) {transpose_b=1} @"fc"
  output "logits" = %16
})";

TrainingPipelineOptions momentum_options() {
  TrainingPipelineOptions options;
  options.verification = TrainingPipelineOptions::after_each_pass;
  options.optimizer.parameters = {{"momentum", 0.9}};
  options.optimizer.scaling.initial = 256;
  return options;
}

size_t count_of(const std::string& text, const std::string& piece) {
  size_t count = 0;
  for (size_t at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++count;
  return count;
}

TEST(Pipeline, OnlyTheFlattenTransposesAChannelsFirstModel) {
  TrainingPipelineOptions options;
  options.stop_after = "simplify_model";
  const PipelineResult result = run_training_pipeline(parse_graph(kLeNet), options);
  ASSERT_EQ(result.graphs.size(), 1u);
  EXPECT_EQ(count_of(print(result.graphs[0]), "transpose("), 1u) << print(result.graphs[0]);
}

TEST(Pipeline, MakesTrainAccumulateAndEvaluate) {
  TrainingPipelineOptions options = momentum_options();
  options.optimizer.accumulation = 2;
  const PipelineResult result = run_training_pipeline(parse_graph(kLeNet), options);
  ASSERT_EQ(result.graphs.size(), 3u);
  EXPECT_EQ(result.graphs[0].name(), "train");
  EXPECT_EQ(result.graphs[1].name(), "accumulate");
  EXPECT_EQ(result.graphs[2].name(), "evaluate");
  EXPECT_TRUE(result.find("train")->output(kLoss));
  EXPECT_TRUE(result.find("train")->output(kCorrect));
  EXPECT_FALSE(result.find("train")->output(kRowLoss));
  EXPECT_TRUE(result.find("evaluate")->output(kRowLoss));
  EXPECT_TRUE(result.find("evaluate")->output("logits"));
  EXPECT_TRUE(result.find("evaluate")->updates().empty());
  EXPECT_EQ(result.arena_states,
            (std::vector<Name>{arena_name(DType::f16), kGradientArena, kParameterArena, kMomentumArena}));
  EXPECT_EQ(result.initial_states.at(kLossScaleState).at(0), 256);
  EXPECT_EQ(result.arenas.slices.size(), 3u);
  const auto c1 = std::ranges::find(result.arenas.slices, "c1.weight", &ArenaSlice::name);
  ASSERT_NE(c1, result.arenas.slices.end());
  EXPECT_EQ(c1->permutation, (Ints{0, 2, 3, 1}));
  EXPECT_EQ(result.times.size(), pipeline_passes().size());
}

TEST(Pipeline, LearnsAndEvaluatesWithTheWeightsItLearned) {
  const PipelineResult result = run_training_pipeline(parse_graph(kLeNet), momentum_options());
  NamedTensors initial = result.initial_states;
  const Tensor arena = random_tensor({DType::f32, {result.arenas.size}}, 5, -0.2, 0.2, 2);
  initial.emplace(kParameterArena, arena);
  initial.emplace(arena_name(DType::f16), arena.cast(DType::f16));
  Stepper stepper(*result.find("train"), initial);
  const NamedTensors batch{{"images", random_tensor({DType::f32, {8, 1, 8, 8}}, 1, -1, 1, 2)},
                           {"labels", random_tensor({DType::i64, {8}}, 2, 0, 0, 3)},
                           {kStepLearningRate, Tensor::scalar(DType::f32, 0.05)}};
  const double first = stepper.step(batch).at(kLoss);
  for (int i = 0; i < 60; ++i) EXPECT_EQ(stepper.step(batch).at(kOverflow), 0);
  const auto last = stepper.step(batch);
  EXPECT_LT(last.at(kLoss), 0.1 * first);
  EXPECT_EQ(last.at(kCorrect), 8);

  NamedTensors leaves = batch;
  for (const DType dtype : {DType::f32, DType::f16})
    leaves.emplace(arena_name(dtype), stepper.state(arena_name(dtype)));
  const auto rows = interpret(*result.find("evaluate"), leaves).outputs;
  double sum = 0;
  for (double row : rows.at(kRowLoss).values) sum += row;
  // Evaluation sees the weights after the step that `loss` was measured in.
  EXPECT_NEAR(sum / 8, stepper.step(batch).at(kLoss), 1e-5);
}

TEST(Pipeline, DumpsWhatChanged) {
  const TemporaryDirectory directory;
  TrainingPipelineOptions options;
  options.dump = directory.path() / "dump";
  options.stop_after = "autocast";
  run_training_pipeline(parse_graph(kLeNet), options);
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(options.dump))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names.front(), "00_import.forward.ir");
  EXPECT_TRUE(names.back().ends_with("_autocast.forward.ir")) << names.back();
  for (const std::string& name : names) {
    EXPECT_EQ(name.find("attach_preprocessing"), std::string::npos) << "a pass that changed nothing is silent";
    const std::string text = read_file(options.dump / name);
    EXPECT_EQ(print(parse_graph(text)), text);
  }
}

TEST(Pipeline, AnUnknownPassIsAnError) {
  TrainingPipelineOptions options;
  options.stop_after = "autcast";
  try {
    run_training_pipeline(parse_graph(kLeNet), options);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_TRUE(std::string(e.what()).starts_with("no pass 'autcast', did you mean 'autocast'?")) << e.what();
  }
}

}  // namespace
}  // namespace halfstep
