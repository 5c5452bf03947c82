// What a training step says of its own tensors, for `halfstep doctor`: of each user's node the forward value and its
// gradient, of each parameter the gradient and the update. Two halves, as gradients are made in between:
//
//   mark_taps (before differentiate, which adds the gradients of what is marked, and add_update, which adds the
//   arenas')
//     %y = relu(%x) @"relu1"    ->    output measure "tap.forward relu1" = %y
//   tap_values (after the arenas are settled)
//     output measure "tap.forward relu1" = %y   ->   output measure "taps" = [how many |y| reach each threshold, max
//     |y|]
//
// with one row of kTapRow numbers a tensor, and, where samples are asked for, evenly spread values in "tap_samples".
// Measures what kernels store: values as rounded, gradients still multiplied by the loss scale. Changes no other
// output and no update.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "passes/training/bind_arenas.h"

namespace halfstep {

struct TapOptions {
  DType low = DType::f16;  // whose range counts
  // Of larger tensors every k-th element is counted by exponent; their maximum is of all elements. 0: no limit.
  int64_t most_counted = 0;
  int64_t samples = 0;  // of each tensor, at most
};

// Thresholds of magnitudes, ascending: 0, the least above it, powers of two, what the low type rounds to no zero, its
// first value that it rounds to infinity, infinity.
inline constexpr size_t kTapThresholds = 48, kTapRow = 64;
struct TapBins {
  std::array<float, kTapThresholds> thresholds;
  int first, width, count;          // the exponents of the bins: first, first + width, ...
  size_t vanish, normal, overflow;  // thresholds: the least that does not vanish, the least normal, beyond the type
};
TapBins tap_bins(DType low);

// How many elements of a tensor are what.
struct TapCounts {
  double counted = 0, zero = 0, underflow = 0, subnormal = 0, overflow = 0, infinite = 0, nan = 0;
  std::vector<double> exponents;  // of the bins: finite, in [2^e, 2^(e+width)), not beyond the low type
  double largest = 0;             // magnitude
  // Of updates: not zero, and lost when added to the weight in the low type, in f32.
  double lost_low = 0, lost_master = 0;
};
TapCounts read_tap(const TapBins& bins, std::span<const float> row, int64_t counted);

struct Tap {
  enum Kind : uint8_t { forward, backward, gradient, update } kind = forward;
  std::string node;  // the user's; of gradient and update: the parameter
  TensorType type;
  int64_t counted = 0;  // elements that are counted by exponent
  int64_t samples = 0;  // in "tap_samples", from `first_sample` on
  int64_t first_sample = 0;
  std::vector<int32_t> inputs = {};          // the taps it is computed from, through values without one
  std::vector<std::string> readers = {};     // of a forward value: the nodes that read it
  std::vector<std::string> parameters = {};  // of a forward value: those that its node reads first
};

inline constexpr OwnName kTaps{Role::measure, "taps"}, kTapSamples{Role::measure, "tap_samples"};
// What the passes between the halves say in: the parameters' scaled gradients, what is taken from the parameters, and
// what these become.
inline constexpr OwnName kTapGradients{Role::measure, "tap.gradients"}, kTapUpdate{Role::measure, "tap.update"},
    kTapAfter{Role::measure, "tap.after"};
bool is_tap(const Name& output);
// Of a marked value's name: that of its gradient.
Name gradient_tap(const Name& forward);

Graph mark_taps(const Graph& graph);
// In the order in which they are computed.
Graph tap_values(const Graph& graph, const ArenaLayout& layout, const TapOptions& options, std::vector<Tap>& taps);

}  // namespace halfstep
