// Loss scaling end to end, on compiled programs: what an overflow leaves alone, and what underflow costs.
#pragma once

#include <gtest/gtest.h>

#include "ir/text.h"
#include "tests/random_tensors.h"
#include "tests/reference_runs.h"
#include "tests/slots.h"

namespace halfstep {

// Everything that the train program carries to the next step, low copies included.
inline NamedTensors carried_states(Executor& executor) {
  NamedTensors states;
  for (const Buffer& buffer : executor.model().find("train")->buffers)
    if (buffer.kind == BufferKind::state && !buffer.name.is(Role::transient))
      states[buffer.name] = executor.read_state(buffer.name);
  return states;
}

// ResNet-18 with AdamW: parameters, low copies, running statistics, two slots and the step counter.
inline void check_overflow_changes_only_the_scale(DeviceKind device) {
  const ReferenceCase resnet{"resnet18", "ts17"};
  nlohmann::json reference = recorded("resnet18");
  reference["inputs"]["images"]["shape"] = {4, 3, 32, 32};
  Recipe recipe = reference_recipe(resnet, reference, "fp16");
  recipe.optimizer = "adamw";
  recipe.weight_decay = 0.01;
  recipe.clip_norm = 1;
  recipe.loss_scale = "dynamic";
  recipe.initial_scale = 1024;
  const std::unique_ptr<Executor> executor = make_executor(compile_training(recipe, device).model, kTestExecutor);
  write_weights(*executor, reference_weights(*executor, resnet, reference), "recorded weights");
  const NamedTensors good = reference_inputs(*executor, reference);
  NamedTensors bad = good;
  for (auto& [name, value] : bad)
    if (name != Name("labels") && value.type.shape.size() == 4) value.set(0, 1e30);  // one pixel, infinite in fp16

  for (int i = 0; i < 2; ++i) EXPECT_EQ(run_program(*executor, "train", good).at(kOverflow).at(0), 0);
  NamedTensors before = carried_states(*executor);
  EXPECT_EQ(before.at(kAdamStep).at(0), 2);
  EXPECT_GT(norm(before.at(kAdamSecond).values()), 0);
  EXPECT_GT(norm(before.at(Name(Role::slot, "parameters.f16")).values()), 0);
  EXPECT_EQ(before.at(kLossScaleTracker).at(0), 2);

  const NamedTensors outputs = run_program(*executor, "train", bad);
  EXPECT_EQ(outputs.at(kOverflow).at(0), 1);
  EXPECT_EQ(outputs.at(kUsedLossScale).at(0), 1024) << "the scale that the step used";
  NamedTensors after = carried_states(*executor);
  EXPECT_EQ(after.at(kLossScaleState).at(0), 512);
  EXPECT_EQ(after.at(kLossScaleTracker).at(0), 0);
  for (const OwnName& moved : {kLossScaleState, kLossScaleTracker}) before.erase(moved), after.erase(moved);
  EXPECT_GT(before.size(), 40u) << "running statistics among them";
  for (const auto& [name, value] : before) EXPECT_TRUE(after.at(name) == value) << to_string(name);

  EXPECT_EQ(run_program(*executor, "train", good).at(kOverflow).at(0), 0);
  EXPECT_EQ(executor->read_state(kAdamStep).at(0), 3);
  EXPECT_FALSE(executor->read_state(kParameterArena) == before.at(kParameterArena));
}

struct TrainingCurve {
  double first = 0, last = 0;  // losses
  bool moved = false;          // any weight changed
};

// A loss that is a small share of a larger one, so that its gradients lie below the smallest f16, 2^-24.
inline TrainingCurve train_faint_model(DeviceKind device, std::optional<DType> low, const LossScaling& scaling) {
  constexpr double kShare = 0x1p-26;
  const Graph model = parse_graph(R"(
    graph faint {
      %x = input() {name="x"} : f32[16,8]
      %target = input() {name="target"} : f32[16,4]
      %w = parameter() {name="w"} : f32[8,4]
      %0 = matmul(%x, %w)
      %1 = sub(%0, %target)
      %2 = mul(%1, %1)
      %3 = reduce_sum(%2) {axes=[1]}
      %4 = reshape(%3) {shape=[16]}
      %share = constant() {value=f32[1](1.4901161193847656e-08)}
      %5 = broadcast(%share) {shape=[16]}
      %6 = mul(%4, %5)
      output "loss" = %6
    })");
  TrainingPipelineOptions options;
  options.loss.kind = "from_graph";
  options.autocast.low = low;
  options.optimizer.scaling = scaling;
  const std::unique_ptr<Executor> executor = compile_step(model, options, device);
  NamedTensors batch{{"x", random_tensor({DType::f32, {16, 8}}, 1, -1, 1, 0)},
                     {"target", random_tensor({DType::f32, {16, 4}}, 2, -1, 1, 0)},
                     {kStepLearningRate, Tensor::scalar(DType::f32, 0.2 / kShare)}};
  write_weights(*executor, {{"w", random_tensor({DType::f32, {8, 4}}, 3, -1, 1, 0)}}, "weights");
  const Tensor initial = executor->read_state(kParameterArena);
  TrainingCurve curve;
  for (int step = 0; step < 40; ++step) {
    curve.last = run_program(*executor, "train", batch).at(kLoss).at(0);
    if (step == 0) curve.first = curve.last;
  }
  curve.moved = !(executor->read_state(kParameterArena) == initial);
  return curve;
}

inline void check_underflow_needs_the_scale(DeviceKind device) {
  const TrainingCurve full = train_faint_model(device, std::nullopt, {.mode = LossScaleMode::none});
  EXPECT_LT(full.last, 0.5 * full.first) << "the model can be trained in fp32";

  const TrainingCurve unscaled = train_faint_model(device, DType::f16, {.mode = LossScaleMode::fixed, .initial = 1});
  EXPECT_FALSE(unscaled.moved) << "every gradient is zero";
  EXPECT_EQ(unscaled.last, unscaled.first);

  const TrainingCurve scaled = train_faint_model(device, DType::f16, {.mode = LossScaleMode::dynamic});
  EXPECT_TRUE(scaled.moved);
  EXPECT_NEAR(scaled.last / full.last, 1, 0.02);
}

}  // namespace halfstep
