// Gradients of whole graphs against central differences of the interpreter in double, where casts change nothing.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "ir/interpret.h"
#include "ir/op.h"
#include "ir/verify.h"
#include "passes/precision/autocast.h"
#include "passes/precision/place_casts.h"
#include "passes/rewrite/expand_composites.h"
#include "passes/rewrite/simplify.h"
#include "passes/training/differentiate.h"
#include "tests/random_tensors.h"

namespace halfstep {

struct LeafRange {
  double low = -1, high = 1;
};

// Parameters on a grid that f32 holds exactly, and so that a step of the differences stays on it.
inline NamedTensors grid_leaves(const Graph& graph, const LeafRange& range) {
  NamedTensors leaves = random_leaves(graph, 11, range.low, range.high, 2);
  for (auto& [name, tensor] : leaves)
    if (tensor.type.dtype == DType::f32)
      for (int64_t i = 0; i < tensor.type.element_count(); ++i) tensor.set(i, std::round(tensor.at(i) * 4096) / 4096);
  return leaves;
}

inline double exact_loss(const Graph& graph, const NamedTensors& leaves) {
  return interpret(graph, leaves, {.rounding = Rounding::none, .observe = nullptr}).outputs.at(kLoss).values[0];
}

// `forward` has the measure "loss".
inline void expect_gradients(const Graph& forward, const LeafRange& range = {}) {
  constexpr double kStep = 1.0 / 1024;
  const Graph differentiated = simplify(expand_composites(differentiate(forward)));
  verify(differentiated);
  const NamedTensors leaves = grid_leaves(forward, range);
  const auto found = interpret(differentiated, leaves, {.rounding = Rounding::none, .observe = nullptr}).outputs;
  int checked = 0;
  for (const Node& node : forward.nodes()) {
    if (node.op->name != "parameter") continue;
    const std::string name = node.attributes.text("name");
    for (int64_t i = 0; i < node.results[0].element_count(); ++i, ++checked) {
      NamedTensors moved = leaves;
      Tensor& parameter = moved.at(name);
      const double at = parameter.at(i);
      parameter.set(i, at + kStep);
      const double above = exact_loss(forward, moved);
      parameter.set(i, at - kStep);
      const double below = exact_loss(forward, moved);
      const double expected = (above - below) / (2 * kStep);
      EXPECT_NEAR(found.at({Role::gradient, name}).values[static_cast<size_t>(i)], expected,
                  2e-4 * std::max(1.0, std::abs(expected)))
          << name << "[" << i << "]";
    }
  }
  EXPECT_GT(checked, 0);
}

// Of `forward` itself and as autocast types it.
inline void expect_gradients_in_all_types(const Graph& forward, const LeafRange& range = {}) {
  verify(forward);
  expect_gradients(forward, range);
  for (DType low : {DType::f16, DType::bf16}) {
    const Graph cast = place_casts(autocast(forward, {.low = low, .rules = {}}));
    verify(cast);
    expect_gradients(cast, range);
  }
}

}  // namespace halfstep
