#include "frontend/onnx/tables.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

namespace halfstep {
namespace {

constexpr int64_t kLargestTable = int64_t{1} << 24;  // elements; what is larger is not looked into
constexpr double kHidden = -1e30;                    // a score this low means that a key is not seen
constexpr double kUsuallyHidden = -100;              // so does this one, if it is the only one
constexpr double kRarelyTrained = 1e4;               // beside zeros such numbers, of either sign, are no weights
constexpr int64_t kFewestRows = 4;                   // any two rows may be a cosine's
constexpr double kTolerance = 1e-4;                  // of the amplitude

bool is_named_weight(const std::string& name) { return name.ends_with("weight") || name.ends_with("bias"); }
// Exporters number what they fold.
bool is_numbered(const std::string& name) { return name.starts_with("val_") || name.starts_with("onnx::"); }

// PyTorch's default exporter names what it folds after the operator: these make numbers of no weights.
bool is_named_fill(const std::string& name) {
  static const std::set<std::string> kFills{
      "full",        "full_like", "zeros", "zeros_like", "ones", "ones_like", "where",      "new_full",     "new_zeros",
      "masked_fill", "new_ones",  "fill",  "sub",        "rsub", "empty",     "empty_like", "scalar_tensor"};
  const size_t number = name.find_last_not_of("0123456789");
  const bool numbered = number != std::string::npos && number > 0 && number + 1 < name.size() && name[number] == '_';
  return kFills.contains(numbered ? name.substr(0, number) : name);
}

bool is_constant(const Tensor& tensor) {
  for (int64_t i = 1; i < tensor.type.element_count(); ++i)
    if (tensor.at(i) != tensor.at(0)) return false;
  return true;
}

// 0 where a score stays and far from it where it is hidden, whatever the shape: queries are not always as many as keys.
bool is_mask(const Tensor& tensor) {
  const Shape& shape = tensor.type.shape;
  const bool is_square = shape.size() > 1 && shape.back() == shape[shape.size() - 2] && shape.back() > 1;
  double hidden = 0;
  bool lowest = true, alike = true, large = true, shows = false;
  for (int64_t i = 0; i < tensor.type.element_count(); ++i) {
    const double v = tensor.at(i);
    if (v == 0) {
      shows = true;
      continue;
    }
    if (hidden == 0) hidden = v;
    lowest &= v <= kHidden, alike &= v == hidden, large &= std::abs(v) >= kRarelyTrained;
    if (!large && !(alike && hidden <= kUsuallyHidden)) return false;
  }
  if (hidden == 0) return is_square && shape.size() == 4 && shape[1] == 1;
  const bool usual = alike && hidden <= kUsuallyHidden && shape.size() > 1;
  return lowest || (is_square && usual) || (shows && (usual || large));
}

// Ones and zeros that choose: triangles, and the masks of pruned weights. What people start weights from has no more
// than a one in a row (identities), or alike rows (the biases of forget gates).
bool is_choice(const Tensor& tensor) {
  const Shape& shape = tensor.type.shape;
  if (shape.size() < 2 || shape.back() < 2) return false;
  const int64_t columns = shape.back(), rows = tensor.type.element_count() / columns;
  bool several = false, differ = false;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t ones = 0;
    for (int64_t column = 0; column < columns; ++column) {
      const double v = tensor.at(row * columns + column);
      if (v != 0 && v != 1) return false;
      ones += v == 1;
      differ |= v != tensor.at(column);
    }
    several |= ones > 1;
  }
  return several && differ;
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

// Linear biases: along some axis every line counts up from or down to zero, and not all of them as fast.
bool holds_linear_biases(const Tensor& tensor) {
  const Shape& shape = tensor.type.shape;
  const std::vector<int64_t> strides = row_major_strides(shape);
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    const int64_t stride = strides[axis], size = shape[axis];
    std::set<double> steps;
    bool holds = size >= kFewestRows;
    for (int64_t first = 0; holds && first < tensor.type.element_count(); ++first) {
      if (first / stride % size != 0) continue;
      const double start = tensor.at(first), end = tensor.at(first + (size - 1) * stride);
      const double step = (end - start) / static_cast<double>(size - 1);
      holds = start == 0 || end == 0;
      for (int64_t i = 1; holds && i < size; ++i)
        holds = std::abs(tensor.at(first + i * stride) - start - static_cast<double>(i) * step) <=
                kTolerance * std::abs(end - start);
      steps.insert(step);
    }
    if (holds && steps.size() > 1) return true;
  }
  return false;
}

// How many elements of a column follow each other that are the same, if every change comes after as many and the
// changes repeat or end with the column; the whole length, if there is none. Column k of [rows, columns].
std::optional<int64_t> run_length(const Tensor& tensor, int64_t k, int64_t rows, int64_t columns) {
  const auto at = [&](int64_t row) { return tensor.at(row * columns + k); };
  int64_t run = 1;
  while (run < rows && at(run) == at(0)) ++run;
  if (rows % run != 0) return std::nullopt;
  int64_t period = run;  // in rows, until the first value comes again
  while (period < rows && at(period) != at(0)) period += run;
  for (int64_t row = run; row < rows; ++row)
    if (at(row) != at(row % period / run * run)) return std::nullopt;
  return run;
}

// Coordinates of the places of a grid, two to four numbers each, of which at least two move: one fast, one slowly.
bool holds_coordinates(const Tensor& tensor) {
  Shape shape = tensor.type.shape;
  while (!shape.empty() && shape.back() == 1) shape.pop_back();
  if (shape.size() < 2 || shape.back() < 2 || shape.back() > 4) return false;
  const int64_t columns = shape.back(), rows = tensor.type.element_count() / columns;
  std::set<int64_t> runs;
  for (int64_t k = 0; k < columns; ++k) {
    const std::optional<int64_t> run = run_length(tensor, k, rows, columns);
    if (!run) return false;
    if (*run < rows) runs.insert(*run);
  }
  return rows >= kFewestRows && runs.size() > 1;
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
  return tensor.name().starts_with("val_") && (first == 0 || first == 1) && is_constant(value);
}

}  // namespace

bool is_table(const onnx::TensorProto& tensor, const TensorReader& reader) {
  const TensorType type = type_of(tensor);
  // A bias is a vector: matrices of that name are masks, as in GPT-2, or tables of positions that are trained.
  const bool is_named = is_named_weight(tensor.name()), is_matrix = type.shape.size() > 1;
  if ((is_named && !(is_matrix && tensor.name().ends_with("bias"))) || type.element_count() == 0 ||
      type.element_count() > kLargestTable || reader.missing_file(tensor))
    return false;
  if (type.element_count() == 1) return !is_named && is_numbered(tensor.name());
  const Tensor value = reader.read(tensor);
  if (!is_matrix) return is_mask(value) || is_geometric(value) || is_neutral(tensor, value);
  if (is_mask(value) || is_choice(value)) return true;
  return !is_named && (holds_waves(value) || holds_linear_biases(value) || holds_coordinates(value) ||
                       (is_named_fill(tensor.name()) && is_constant(value)));
}

}  // namespace halfstep
