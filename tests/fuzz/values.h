// What the leaves of a graph hold: named distributions, so that a case is a few words of text.
#pragma once

#include <map>
#include <string>

#include "base/tensor.h"

namespace halfstep::fuzz {

enum class Distribution : uint8_t {
  zeros,
  ones,
  grid,       // halves from -2 to 2: ties, and sums without rounding
  normal,     // around 0, deviation 1
  positive,   // 0.1 to 4
  unit,       // 0.02 to 0.98
  sparse,     // normal, half of them 0
  rows,       // grid, but every second row of the last axis is 0
  saturated,  // 8 to 60 of both signs
  large,      // 10^3 to 6 * 10^4 of both signs: up to the range of f16
  huge,       // 10^5 to 10^15 of both signs
  tiny,       // 10^-9 to 10^-4 of both signs
  mixed,      // each element of another one
  below,      // integers in [0, bound)
};
inline constexpr int kDistributions = 14;

struct LeafValues {
  Distribution distribution = Distribution::grid;
  uint64_t seed = 0;
  int64_t bound = 2;
  friend bool operator==(const LeafValues&, const LeafValues&) = default;
};
using CaseValues = std::map<std::string, LeafValues>;  // by leaf

// "grid 17", "below 5 17".
std::string to_string(const LeafValues& values);
LeafValues parse_values(const std::string& text);  // Error for another text

Tensor draw(const TensorType& type, const LeafValues& values);

}  // namespace halfstep::fuzz
