#include "frontend/tables.h"

#include <algorithm>
#include <cmath>

namespace halfstep {
namespace {

constexpr int64_t kLargestTable = int64_t{1} << 24;  // elements; what is larger is not looked into
constexpr double kHidden = -1e30;                    // a score this low means that a key is not seen
constexpr int64_t kFewestRows = 4;                   // any two rows may be a cosine's
constexpr double kTolerance = 1e-4;                  // of the amplitude

bool is_named_weight(const std::string& name) { return name.ends_with("weight") || name.ends_with("bias"); }
// Exporters number what they fold.
bool is_numbered(const std::string& name) { return name.starts_with("val_") || name.starts_with("onnx::"); }

bool is_masking(double v) { return v == 0 || v <= kHidden; }

bool is_mask(const Tensor& tensor) {
  const Shape& shape = tensor.type.shape;
  const bool is_square = shape.back() == shape[shape.size() - 2];
  if (shape.back() < 2 || (!is_square && shape[shape.size() - 2] != 1)) return false;
  bool hides = false;
  for (int64_t i = 0; i < tensor.type.element_count(); ++i) {
    if (!is_masking(tensor.at(i))) return false;
    hides |= tensor.at(i) != 0;
  }
  return hides || (is_square && shape.size() == 4 && shape[1] == 1);
}

// Whether the column holds a multiple of cos(p f) or sin(p f), p the row: v[p + 1] + v[p - 1] = 2 cos(f) v[p].
bool is_wave(const Tensor& tensor, int64_t first, int64_t rows, int64_t columns) {
  const auto at = [&](int64_t row) { return tensor.at(first + row * columns); };
  double amplitude = 0;
  for (int64_t row = 0; row < rows; ++row) amplitude = std::max(amplitude, std::abs(at(row)));
  if (amplitude == 0) return true;
  const double twice_cosine = at(0) == 0 ? at(2) / at(1) : 2 * at(1) / at(0);
  if (!(std::abs(twice_cosine) <= 2 * (1 + kTolerance))) return false;
  for (int64_t row = 1; row + 1 < rows; ++row)
    if (!(std::abs(at(row + 1) + at(row - 1) - twice_cosine * at(row)) <= kTolerance * amplitude)) return false;
  return true;
}

bool holds_waves(const Tensor& tensor) {
  const Shape& shape = tensor.type.shape;
  if (shape.size() < 2 || shape[shape.size() - 2] < kFewestRows || shape.back() < 2) return false;
  const int64_t rows = shape[shape.size() - 2], columns = shape.back();
  bool moves = false;
  for (int64_t matrix = 0; matrix < tensor.type.element_count(); matrix += rows * columns)
    for (int64_t column = 0; column < columns; ++column) {
      if (!is_wave(tensor, matrix + column, rows, columns)) return false;
      moves |= tensor.at(matrix + column) != tensor.at(matrix + column + columns);
    }
  return moves;
}

// The frequencies of a rotary embedding that is computed in the graph: 1, r, r^2, ...
bool is_geometric(const Tensor& tensor) {
  const int64_t count = tensor.type.element_count();
  if (count < kFewestRows || tensor.at(0) != 1) return false;
  const double ratio = tensor.at(1);
  for (int64_t i = 1; i < count; ++i)
    if (!(std::abs(tensor.at(i) - ratio * tensor.at(i - 1)) <= kTolerance * tensor.at(i))) return false;
  return ratio > 0 && ratio < 1;
}

// The scale and shift of a norm that PyTorch computes without: weights that its default exporter folds are no vectors.
bool is_neutral(const onnx::TensorProto& tensor, const Tensor& value) {
  const double first = value.at(0);
  if (!tensor.name().starts_with("val_") || (first != 0 && first != 1)) return false;
  for (int64_t i = 1; i < value.type.element_count(); ++i)
    if (value.at(i) != first) return false;
  return true;
}

}  // namespace

bool is_table(const onnx::TensorProto& tensor, const TensorReader& reader) {
  const TensorType type = type_of(tensor);
  if (is_named_weight(tensor.name()) || type.element_count() > kLargestTable || reader.missing_file(tensor))
    return false;
  if (type.element_count() == 1) return is_numbered(tensor.name());
  const Tensor value = reader.read(tensor);
  if (type.shape.size() == 1) return is_geometric(value) || is_neutral(tensor, value);
  return is_mask(value) || holds_waves(value);
}

}  // namespace halfstep
