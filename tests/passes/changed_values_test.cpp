// Passes that change by intent what a graph computes, and so have no value check by their cases.
#include <gtest/gtest.h>

#include <cmath>

#include "ir/interpret.h"
#include "ir/text.h"
#include "passes/model/attach_preprocessing.h"
#include "passes/model/inference.h"
#include "tests/random_tensors.h"

namespace halfstep {
namespace {

TEST(AttachPreprocessing, BytesGiveWhatTheirNormalisedFloatsGave) {
  const Graph model = parse_graph(R"(
    graph model {
      %x = input() {name="image"} : f32[2,3,2,2]
      %y = tanh(%x) @"act"
      output "y" = %y
    })");
  const PreprocessingOptions options{.input = "image", .scale = 1.0 / 128, .mean = {0.5, 0.25, 0}, .std = {0.5, 2, 1}};
  const Tensor bytes = random_tensor({DType::u8, {2, 3, 2, 2}}, 1, 0, 0, 256);
  Tensor floats({DType::f32, {2, 3, 2, 2}});
  for (int64_t i = 0; i < 24; ++i) {
    const auto channel = static_cast<size_t>(i / 4 % 3);
    floats.set(i, (bytes.at(i) * options.scale - options.mean[channel]) / options.std[channel]);
  }
  const auto before = interpret(model, {{"image", floats}}).outputs.at("y");
  const auto after = interpret(attach_preprocessing(model, options), {{"image", bytes}}).outputs.at("y");
  for (size_t i = 0; i < 24; ++i) EXPECT_NEAR(after.values[i], before.values[i], 1e-6) << i;
}

TEST(Inference, NormalisesByRunningStatisticsAndDropsNothing) {
  const Graph evaluate = inference(parse_graph(R"(
    graph model {
      %x = input() {name="x"} : f32[2,2,3]
      %seed = input() {name="seed", role="step_input"} : i64[]
      %it = input() {name="iteration", role="step_input"} : i32[]
      %s = parameter() {name="scale"} : f32[3]
      %b = parameter() {name="bias"} : f32[3]
      %m = state() {name="mean"} : f32[3]
      %v = state() {name="var"} : f32[3]
      %1, %2, %3 = batch_norm(%x, %s, %b, %m, %v) {axis=2} @"bn"
      %4 = dropout(%1, %seed, %it) {ratio=0.5, site=1} @"drop"
      output "y" = %4
      update %m = %2
    })"));
  const NamedTensors leaves = random_leaves(evaluate, 7, 0.5, 2);
  const InterpretResult result = interpret(evaluate, leaves);
  EXPECT_TRUE(result.updates.empty());
  for (int64_t i = 0; i < 12; ++i) {
    const auto of = [&](const char* name) { return leaves.at(name).at(i % 3); };
    const double expected =
        (leaves.at("x").at(i) - of("mean")) / std::sqrt(of("var") + 1e-5) * of("scale") + of("bias");
    EXPECT_NEAR(result.outputs.at("y").values[static_cast<size_t>(i)], expected, 1e-5) << i;
  }
}

}  // namespace
}  // namespace halfstep
