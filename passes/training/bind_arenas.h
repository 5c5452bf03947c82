// Puts all parameters into one flat state value, and their low copies into another:
//
//   %w = parameter() {name="fc.weight"} : f32[10,32]
//   %h = cast(%w) {to=f16}
// becomes
//   %p = state() {name="parameters", role="slot"} : f32[1024]
//   %q = state() {name="parameters.f16", role="slot"} : f16[1024]
//   %h = reshape(slice(%q) {starts=[64], limits=[384]})
//
// so that the optimizer, the overflow check and an all-reduce are one kernel each, and a weight is narrowed once a
// step, by the optimizer. Runs after differentiate, which knows parameters as leaves, and before add_update, which
// updates the states made here; the evaluation graph is bound to the same layout. Leaves gradients alone.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

// Where a parameter lies in every arena, in elements.
struct ArenaSlice {
  std::string name;  // the ONNX initializer
  Shape shape;       // as stored
  Ints permutation;  // stored axis i is axis permutation[i] of the ONNX tensor; empty: as in ONNX
  int64_t offset = 0;

  int64_t size() const { return TensorType{DType::f32, shape}.element_count(); }
};

struct ArenaLayout {
  int64_t size = 0;  // elements of an arena
  std::vector<ArenaSlice> slices;
  int64_t decayed = 0;  // elements with weight decay: those before this one
};

inline constexpr int64_t kSliceAlignment = 64;    // elements; 128 bytes in f16
inline constexpr int64_t kArenaAlignment = 1024;  // elements

// A word among the patterns of plan_arenas: parameters of at most one axis, which are biases and norms.
inline constexpr std::string_view kVectors = "vectors";

// In the order of the parameter leaves, those without weight decay behind the others, so that one comparison of an
// element's index tells them apart; gaps between slices hold zeros. `no_decay`: patterns (* ? []) of names, or
// "vectors". Error naming a pattern that no parameter has.
ArenaLayout plan_arenas(const Graph& graph, const std::vector<std::string>& no_decay = {});
Graph bind_arenas(const Graph& graph, const ArenaLayout& layout);

// Slot "parameters", and "parameters.f16" or "parameters.bf16" for its low copy.
Name arena_name(DType dtype);

}  // namespace halfstep
