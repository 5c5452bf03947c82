// Recurrent networks as cuDNN has them: their sizes, and how all their weights lie in one vector.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace halfstep {

// A gru resets after the product with its state.
enum class RecurrentCell : uint8_t { lstm, gru, tanh, relu };
std::string_view name(RecurrentCell cell);
std::optional<RecurrentCell> recurrent_cell(std::string_view name);

// Layers one above the other, each of one or two directions, which read the whole sequence of the layer below.
struct RecurrentSizes {
  RecurrentCell cell = RecurrentCell::lstm;
  int64_t steps = 0, batch = 0, inputs = 0, hidden = 0;
  int64_t layers = 1, directions = 1;
  bool biased = true;

  int64_t inputs_of(int64_t layer) const { return layer == 0 ? inputs : hidden * directions; }
  int64_t rows() const { return hidden * (cell == RecurrentCell::lstm ? 4 : cell == RecurrentCell::gru ? 3 : 1); }
  bool has_c() const { return cell == RecurrentCell::lstm; }
  friend bool operator==(const RecurrentSizes&, const RecurrentSizes&) = default;
};

// Where blocks of the weights begin, in elements. Matrices come first: for each layer and each direction of it [rows,
// inputs_of(layer)] and then [rows, hidden]; behind all of them, where there are biases, in the same order a vector
// [rows] for each matrix. Rows: `hidden` for each gate; of an lstm input, forget, cell, output; of a gru reset, update,
// new (cudnnGetRNNWeightParams). Errors where a size leaves 64 bits.
enum class RecurrentPart : uint8_t { input, recurrent };
int64_t matrix_offset(const RecurrentSizes& sizes, int64_t layer, int64_t direction, RecurrentPart part);
int64_t bias_offset(const RecurrentSizes& sizes, int64_t layer, int64_t direction, RecurrentPart part);
int64_t weight_count(const RecurrentSizes& sizes);

}  // namespace halfstep
