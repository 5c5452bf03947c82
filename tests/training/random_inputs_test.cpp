#include "training/random_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace halfstep {
namespace {

using testing::AllOf;
using testing::Each;
using testing::Ge;
using testing::Lt;

TEST(RandomInputs, AreNormalOrBelowTheirBounds) {
  Program program;
  const TensorType types[] = {{DType::f16, {40, 50}},  {DType::i64, {500}}, {DType::i32, {500}},
                              {DType::boolean, {500}}, {DType::f32, {}},    {DType::i64, {}}};
  const Name names[] = {"x", "targets", "ids", "mask", kStepLearningRate, kStepSeed};
  std::vector<Tensor> tensors;
  std::vector<std::span<std::byte>> staging;
  program.buffers.push_back({"w", BufferKind::state, {DType::f32, {3}}});
  for (size_t i = 0; i < std::size(types); ++i) {
    program.buffers.push_back({names[i], BufferKind::input, types[i]});
    tensors.emplace_back(types[i]);
  }
  for (Tensor& t : tensors) staging.emplace_back(t.data.data(), t.data.size());
  CompiledModel model;
  model.notes.label_input = "targets", model.notes.classes = 10, model.notes.table_rows = {{"ids", 300}};
  fill_random(model, program, 0.25, staging);

  double sum = 0, squares = 0;
  for (const double v : tensors[0].values()) sum += v, squares += v * v;
  EXPECT_LT(std::abs(sum / 2000), 0.1);
  EXPECT_NEAR(squares / 2000, 1, 0.15);
  const auto largest = [&](size_t input) { return std::ranges::max(tensors[input].values()); };
  EXPECT_THAT(tensors[1].values(), Each(AllOf(Ge(0), Lt(10))));
  EXPECT_EQ(largest(1), 9);
  EXPECT_THAT(tensors[2].values(), Each(AllOf(Ge(0), Lt(300))));
  EXPECT_GT(largest(2), 250);
  EXPECT_THAT(tensors[3].values(), Each(AllOf(Ge(0), Lt(2))));
  EXPECT_EQ(largest(3), 1);
  EXPECT_EQ(tensors[4].at(0), 0.25);
  EXPECT_EQ(tensors[5].at(0), 0);
}

}  // namespace
}  // namespace halfstep
