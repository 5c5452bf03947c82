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

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/optimizers.h"
#include "ir/graph.h"

namespace halfstep {

// Where a parameter lies in every arena, in elements.
struct ArenaSlice {
  std::string name;  // the ONNX initializer
  Shape shape;       // as stored
  Ints permutation;  // stored axis i is axis permutation[i] of the ONNX tensor; empty: as in ONNX
  int64_t offset = 0;
  size_t segment = 0;
  int64_t output_axis = 0;  // of the ONNX tensor: along it lie the outputs of the layer

  int64_t size() const { return TensorType{DType::f32, shape}.element_count(); }
  Shape file_shape() const;
};

// Neighbours in the arenas that the optimizer treats alike.
struct ArenaSegment {
  int64_t end = 0;  // elements; the next begins there
  double weight_decay = 0;
  size_t rate = 0;     // of ArenaLayout::rates
  bool apart = false;  // as the optimizer's row says
};

// Parameters that share a learning rate.
struct ArenaRate {
  std::optional<size_t> group{};  // with a rate of its own
  int64_t from_epoch = 1;         // 0 before it
  friend bool operator==(const ArenaRate&, const ArenaRate&) = default;
};

struct ArenaLayout {
  int64_t size = 0;  // elements of an arena
  std::vector<ArenaSlice> slices;
  std::vector<ArenaSegment> segments;  // one at least; the last ends with the arenas
  std::vector<ArenaRate> rates;        // one at least
};

inline constexpr int64_t kSliceAlignment = 64;    // elements; 128 bytes in f16
inline constexpr int64_t kArenaAlignment = 1024;  // elements

// A word among the patterns: parameters of at most one axis, which are biases and norms.
inline constexpr std::string_view kVectors = "vectors";

// Parameters that a recipe's [[group]] names.
struct ParameterGroup {
  std::vector<std::string> patterns;
  std::optional<double> weight_decay{};
  enum Rate : uint8_t { shared, own } rate = shared;
  bool rest = false;  // of the optimizer's row: not set apart
};

// What of a recipe decides how parameters lie. Patterns (* ? []) are of names, or the word kVectors; of groups, and of
// `unfreeze`, the first that matches holds.
struct ArenaOrder {
  double weight_decay = 0;
  std::vector<std::string> no_decay = {};
  std::vector<ParameterGroup> groups = {};
  std::vector<std::pair<std::string, int64_t>> unfreeze = {};  // pattern, epoch
  OptimizerRow::Apart apart = OptimizerRow::none;
};

// In the order of the parameter leaves, those that differ in decay, rate or optimizer behind the others, so that
// comparisons of an element's index tell them apart; gaps between slices hold zeros. Error naming each pattern that no
// parameter has.
ArenaLayout plan_arenas(const Graph& graph, const ArenaOrder& order = {});
Graph bind_arenas(const Graph& graph, const ArenaLayout& layout);

// Slot "parameters", and "parameters.f16" or "parameters.bf16" for its low copy.
Name arena_name(DType dtype);

}  // namespace halfstep
