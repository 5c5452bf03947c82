// A step without arenas computes what the step with them does, from the same weights.
#include "passes/training/unbind_arenas.h"

#include <gtest/gtest.h>

#include "tests/passes/stepper.h"
#include "tests/random_tensors.h"

namespace halfstep {
namespace {

constexpr const char* kModel = R"(
graph model {
  %x = input() {name="x"} : f32[5,4]
  %w = parameter() {name="w", permutation=[1,0]} : f32[3,4]
  %c = cast(%w) {to=f16}
  %f = cast(%c) {to=f32}
  %b = parameter() {name="b"} : f32[3]
  %0 = matmul(%x, %f) {transpose_b=1}
  %1 = reshape(%b) {shape=[1,3]}
  %2 = broadcast(%1) {shape=[5,3]}
  %3 = add(%0, %2)
  %4 = tanh(%3)
  %5 = reduce_sum(%4) {axes=[0,1]}
  %6 = reshape(%5) {shape=[]}
  %m = state() {name="mean"} : f32[3]
  output measure "loss" = %6
  update %m = %b
})";

// The state of each parameter from the arenas, in the layout of the file.
NamedTensors taken_apart(const NamedTensors& states, const ArenaLayout& layout) {
  NamedTensors apart;
  for (const auto& [name, tensor] : states) {
    if (tensor.type.shape != Shape{layout.size}) {
      apart.emplace(name, tensor);
      continue;
    }
    if (tensor.type.dtype != DType::f32) continue;
    for (const ArenaSlice& slice : layout.slices) {
      Tensor piece(TensorType{DType::f32, slice.shape});
      for (int64_t i = 0; i < slice.size(); ++i) piece.set(i, tensor.at(slice.offset + i));
      if (!slice.permutation.empty()) piece = piece.transpose(slice.permutation);  // [1,0] is its own inverse
      apart.emplace(name == kParameterArena ? Name(slice.name) : Name(Role::slot, name.text + "/" + slice.name), piece);
    }
  }
  return apart;
}

void expect_same_steps(const OptimizerOptions& options) {
  const Graph differentiated = differentiate(parse_graph(kModel), {.scaling = options.scaling});
  const ArenaLayout layout = plan_arenas(differentiated, arena_order(options));
  const Graph train = add_update(bind_arenas(differentiated, layout), options, layout);
  const Graph apart = unbind_arenas(train, layout);
  NamedTensors initial = initial_states(options);
  Tensor arena(TensorType{DType::f32, {layout.size}});
  for (const ArenaSlice& slice : layout.slices)
    for (int64_t i = 0; i < slice.size(); ++i) arena.set(slice.offset + i, 0.125 * static_cast<double>(i % 7) - 0.25);
  initial[arena_name(DType::f16)] = arena.cast(DType::f16);
  initial[arena_name(DType::f32)] = arena;
  Tensor rates(TensorType{DType::f32, layout.rates.size() == 1 ? Shape{} : Shape{2}});
  for (int64_t i = 0; i < rates.type.element_count(); ++i) rates.set(i, i == 0 ? 0.125 : 0.5);
  Stepper bound(train, initial), unbound(apart, taken_apart(initial, layout));
  for (int step = 0; step < 3; ++step) {
    const NamedTensors inputs{{"x", random_tensor({DType::f32, {5, 4}}, static_cast<uint64_t>(step), -1, 1, 2)},
                              {kStepLearningRate, rates}};
    EXPECT_EQ(bound.step(inputs), unbound.step(inputs));
  }
  const NamedTensors expected = taken_apart(bound.states(), layout), found = unbound.states();
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected)
    for (int64_t i = 0; i < tensor.type.element_count(); ++i)
      EXPECT_NEAR(found.at(name).at(i), tensor.at(i), 1e-6)
          << to_string(name) << "[" << i << "]";  // the norm's sums differ
}

TEST(UnbindArenas, MomentumAndAScaleThatOverflows) {
  OptimizerOptions options{.parameters = {{"momentum", 0.9}}};
  options.weight_decay = 0.01;
  options.scaling.initial = 1e38;
  expect_same_steps(options);
}

TEST(UnbindArenas, AdamWithDecayOfSomeAndAClippedNorm) {
  OptimizerOptions options{.name = "adamw", .weight_decay = 0.1, .no_decay = {"vectors"}};
  options.clip_norm = 0.5;
  options.scaling.mode = LossScaleMode::none;
  expect_same_steps(options);
}

TEST(UnbindArenas, OptimizersThatLookAtEachParameterAndRatesOfGroups) {
  for (const char* name : {"lamb", "lars", "muon", "adafactor"}) {
    SCOPED_TRACE(name);
    OptimizerOptions options{.name = name, .weight_decay = 0.1, .no_decay = {"vectors"}};
    options.scaling.mode = LossScaleMode::none;
    expect_same_steps(options);
    options.clip_adaptive = 0.25, options.ema = 0.5;
    options.groups = {{.patterns = {"b"}, .rate = ParameterGroup::own}};
    expect_same_steps(options);
  }
}

}  // namespace
}  // namespace halfstep
