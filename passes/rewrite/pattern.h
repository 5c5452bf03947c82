// Patterns of expressions, so that a rule reads as before and after:
//
//   const Pattern x = any(0);
//   const Pattern gelu = product(0.5, {x, sum(1, {call("erf", {product(std::numbers::sqrt2 / 2, {x})})})});
//
// A pattern matches a value of a graph. Sums and products match however they are nested and ordered, with their
// constants folded; a constant matches within kConstantTolerance, since people write 0.7071, but a whole number or a
// half within kSameTolerance. Matching is bounded in depth, so that it costs the same at every node.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

inline constexpr double kConstantTolerance = 1e-4;  // relative
inline constexpr double kSameTolerance = 1e-6;      // of two constants that should be one, rounded to f32

// The values and numbers that a match found, by slot.
struct Captures {
  std::array<Value, 6> values{};
  std::array<double, 4> numbers{};
  std::array<bool, 4> has_number{};
};

// A constant of a sum or product: a number, or a slot that takes whatever stands there.
struct PatternNumber {
  double value = 0;
  int slot = -1;
  constexpr PatternNumber(double number) : value(number) {}  // NOLINT: 0.5 stands for itself
  static constexpr PatternNumber captured(int slot) {
    PatternNumber number(0);
    number.slot = slot;
    return number;
  }
};

struct Pattern {
  enum Kind : uint8_t { any, call, product, sum, spread, either } kind = any;
  int slot = -1;  // where the value is kept; -1: nowhere
  PatternNumber number = 0;
  std::string_view op = {};
  std::vector<Pattern> parts = {};
};

// Any value; where a slot occurs again, the same value.
Pattern any(int slot);
// A node of the op. Operands of add, mul, max and min in either order.
Pattern call(std::string_view op, std::vector<Pattern> parts);
// number * parts..., made of mul, div by a constant, neg and small integer powers; also of factors that are multiplied
// before they are repeated along axes.
Pattern product(PatternNumber number, std::vector<Pattern> parts);
// number + parts..., made of add and sub of a constant.
Pattern sum(PatternNumber number, std::vector<Pattern> parts);
// The part, repeated along axes in which it has size 1.
Pattern spread(Pattern part);
// The first of the parts that matches.
Pattern either(std::vector<Pattern> parts);
// The pattern, its value kept in `slot`.
Pattern kept(int slot, Pattern pattern);

// Captures are those found where it matches, and unspecified where it does not.
bool matches(const Graph& graph, Value value, const Pattern& pattern, Captures& captures);

}  // namespace halfstep
