#include "data/sample_fit.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>

namespace halfstep {
namespace {

Shape sample_shape(const TensorType& type) { return {type.shape.begin() + 1, type.shape.end()}; }

Shape without_ones(Shape shape) {
  std::erase(shape, 1);
  return shape;
}

int64_t element_count(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

bool can_convert(DType from, DType to) {
  if (from == to || is_floating(to)) return true;
  return !is_floating(from) && (to == DType::i32 || to == DType::i64);
}

// Bytes above 1 are no truth values.
bool holds_bytes(const SampleValues& values) {
  return values.type.dtype == DType::u8 && values.first_that_fails([](double v) { return v <= 1; }) >= 0;
}

// -1: none is.
int64_t first_out_of_range(const SampleValues& values, DType to) {
  const DType from = values.type.dtype;
  if (from == DType::i64 && to == DType::i32)
    return values.first_that_fails([](double v) { return v >= INT32_MIN && v <= INT32_MAX; });
  if ((from == DType::f64 && is_floating(to) && to != DType::f64) || (from != to && to == DType::f16))
    return values.first_that_fails(
        [to](double v) { return std::abs(v) <= (to == DType::f16 ? 65504.0 : std::numeric_limits<float>::max()); });
  return -1;
}

}  // namespace

SampleFit fit_sample(const Buffer& input, const TensorType& array) {
  if (input.type.shape.empty() || input.type.shape[0] < 1 || array.shape.empty()) return {};
  const Shape wanted = without_ones(sample_shape(input.type)), found = without_ones(sample_shape(array));
  if (wanted == found) return {SampleFit::same};
  if (element_count(wanted) != element_count(found)) return {};
  if (wanted.size() < 2 || found.size() < 2) return {SampleFit::flat};
  // Labels and ids have no channels.
  if (!is_floating(input.type.dtype) && input.type.dtype != DType::u8) return {};
  Shape last_first = found, first_last = found;
  std::ranges::rotate(last_first, last_first.end() - 1);
  std::ranges::rotate(first_last, first_last.begin() + 1);
  if (last_first == wanted) return {SampleFit::transposed, found.back()};
  if (first_last == wanted) return {SampleFit::transposed, element_count(found) / found.front()};
  return {};
}

bool fits(const Buffer& input, const TensorType& array) {
  return fit_sample(input, array).kind != SampleFit::none && can_convert(array.dtype, input.type.dtype);
}

std::string misfit(const Buffer& input, const std::string& what, const TensorType& array) {
  const Shape wanted = sample_shape(input.type), found = sample_shape(array);
  std::string text = to_string(input.type) + " takes samples of " + to_string(wanted) + ", those of " + what + " " +
                     to_string(array) + " are " + to_string(found);
  if (input.name == Name("labels"))
    return text + (is_floating(input.type.dtype)
                       ? ": its loss takes a label of 0 or 1 for each number of the output; of one class for a sample, "
                         "softmax_cross_entropy"
                       : ": class_axis chooses the output's axis that labels do not have; labels of 0 and 1 for each "
                         "class are bce_with_logits's");
  return text + (element_count(wanted) == element_count(found) ? ": transpose the array"
                                                               : ": store the array in the input's shape, or give the "
                                                                 "input another with shape");
}

std::string describe(const SampleFit& fit, const Buffer& input, const std::string& what, const TensorType& array) {
  const std::string change = "samples of " + what + ", " + to_string(sample_shape(array)) + ", are ";
  const std::string goal = to_string(sample_shape(input.type)) + " of input '" + input.name.text + "'";
  if (fit.kind == SampleFit::transposed) return change + "transposed to " + goal;
  if (fit.kind == SampleFit::flat) return change + "read in their order as " + goal;
  return "";
}

std::string conversion_problem(const Buffer& input, const NamedArray& array, bool scaled) {
  const DType from = array.values.type.dtype, to = input.type.dtype;
  const std::string found =
      "expected " + std::string(name(to)) + ", but data array '" + array.name + "' is " + std::string(name(from));
  if (!can_convert(from, to))
    return found + (to == DType::u8 && is_floating(from)
                        ? ": leave scale, mean and std out, which take bytes, or store "
                          "bytes"
                    : is_floating(from) ? ": store it as integers"
                                        : "");
  if (is_floating(to) && !scaled && holds_bytes(array.values))
    return found +
           ": say with scale what they are multiplied by (0.00392157 makes 0 to 255 0 to 1, 1 leaves them as "
           "they are), or store floating numbers";
  if (const int64_t first = first_out_of_range(array.values, to); first >= 0)
    return found + ", and its element " + std::to_string(first) + " is beyond " + std::string(name(to));
  return "";
}

}  // namespace halfstep
