#include "base/recurrent.h"

#include <array>

#include "base/checked.h"

namespace halfstep {
namespace {

constexpr std::array<std::string_view, 4> kCells{"lstm", "gru", "tanh", "relu"};

// Of one direction of a layer.
int64_t matrices(const RecurrentSizes& s, int64_t layer) {
  return checked_mul(s.rows(), checked_add(s.inputs_of(layer), s.hidden, "weights"), "weights");
}

}  // namespace

std::string_view name(RecurrentCell cell) { return kCells[static_cast<size_t>(cell)]; }

std::optional<RecurrentCell> recurrent_cell(std::string_view wanted) {
  for (size_t i = 0; i < kCells.size(); ++i)
    if (kCells[i] == wanted) return static_cast<RecurrentCell>(i);
  return std::nullopt;
}

int64_t matrix_offset(const RecurrentSizes& s, int64_t layer, int64_t direction, RecurrentPart part) {
  int64_t offset = 0;
  // All layers above the first have the same sizes.
  if (layer > 0) offset = checked_mul(s.directions, matrices(s, 0), "weights");
  if (layer > 1)
    offset = checked_add(offset, checked_mul((layer - 1) * s.directions, matrices(s, 1), "weights"), "weights");
  if (layer < s.layers) offset = checked_add(offset, checked_mul(direction, matrices(s, layer), "weights"), "weights");
  return part == RecurrentPart::input ? offset : offset + s.rows() * s.inputs_of(layer);
}

int64_t bias_offset(const RecurrentSizes& s, int64_t layer, int64_t direction, RecurrentPart part) {
  const int64_t vectors = 2 * (layer * s.directions + direction) + (part == RecurrentPart::recurrent ? 1 : 0);
  return checked_add(matrix_offset(s, s.layers, 0, RecurrentPart::input), checked_mul(vectors, s.rows(), "weights"),
                     "weights");
}

int64_t weight_count(const RecurrentSizes& s) {
  return s.biased ? bias_offset(s, s.layers, 0, RecurrentPart::input)
                  : matrix_offset(s, s.layers, 0, RecurrentPart::input);
}

}  // namespace halfstep
