// Pictures of expressions, so that a rule reads as before and after:
//
//   const Picture x = any(0);
//   const Picture gelu = product(0.5, {x, sum(1, {call("erf", {product(std::numbers::sqrt2 / 2, {x})})})});
//
// A picture matches a value of a graph. Sums and products match however they are nested and ordered, with their
// constants folded; a constant matches within kConstantTolerance, since people write 0.7071. Matching is bounded in
// depth, so that it costs the same at every node.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

inline constexpr double kConstantTolerance = 1e-4;  // relative
inline constexpr double kSameTolerance = 1e-6;      // of two constants that should be one, rounded to f32

// What a match found, by slot.
struct Captures {
  std::array<Value, 6> values{};
  std::array<double, 4> numbers{};
  std::array<bool, 4> has_number{};
};

// A constant of a sum or product: a number, or a slot that takes whatever stands there.
struct PictureNumber {
  double value = 0;
  int slot = -1;
  constexpr PictureNumber(double number) : value(number) {}  // NOLINT: 0.5 stands for itself
  static constexpr PictureNumber captured(int slot) {
    PictureNumber number(0);
    number.slot = slot;
    return number;
  }
};

struct Picture {
  enum Kind : uint8_t { any, call, product, sum, spread, either } kind = any;
  int slot = -1;  // where the value is kept; -1: nowhere
  PictureNumber number = 0;
  std::string_view op = {};
  std::vector<Picture> parts = {};
};

// Any value; where a slot occurs again, the same value.
Picture any(int slot);
// A node of the op. Operands of add, mul, max and min in either order.
Picture call(std::string_view op, std::vector<Picture> parts);
// number * parts..., made of mul, div by a constant, neg and small integer powers; also of factors that are multiplied
// before they are repeated along axes.
Picture product(PictureNumber number, std::vector<Picture> parts);
// number + parts..., made of add and sub of a constant.
Picture sum(PictureNumber number, std::vector<Picture> parts);
// The part, repeated along axes in which it has size 1.
Picture spread(Picture part);
// The first of the parts that matches.
Picture either(std::vector<Picture> parts);
// The picture, its value kept in `slot`.
Picture kept(int slot, Picture picture);

// Captures are those found where it matches, and unspecified where it does not.
bool matches(const Graph& graph, Value value, const Picture& picture, Captures& captures);

}  // namespace halfstep
