#include "data/data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"

namespace halfstep {
namespace {

// Index of the first element that is not finite.
std::optional<int64_t> first_non_finite(const SampleValues& values) {
  int64_t found = -1;
  if (values.type.dtype == DType::f32)
    values.scan([&](int64_t first, std::span<const std::byte> bytes) {
      const std::span elements(reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float));
      const auto bad = std::ranges::find_if(elements, [](float v) { return !std::isfinite(v); });
      if (bad != elements.end()) found = first + (bad - elements.begin());
      return found < 0;
    });
  else
    found = values.first_that_fails([](double v) { return std::isfinite(v); });
  return found < 0 ? std::nullopt : std::optional(found);
}

void check_finite(const NamedArray& array) {
  const std::optional<int64_t> element = first_non_finite(array.values);
  if (!element) return;
  const int64_t per_sample = array.values.type.element_count() / array.values.type.shape[0];
  throw Error("data array '" + array.name + "': sample " + std::to_string(*element / per_sample) + " holds " +
              (std::isnan(array.values.at(*element)) ? "NaN" : "an infinity") + " (element " +
              std::to_string(*element % per_sample) + "): remove the sample or repair the file");
}

struct Bounds {
  double least, most;
  std::optional<int64_t> ignored;
  std::string what, remedy;

  bool hold(double v) const { return (v >= least && v <= most) || (ignored && v == static_cast<double>(*ignored)); }
  std::string text() const {
    if (std::isinf(least)) return fmt::format("at most {:g}", most);
    return fmt::format("{:.17g} to {:.17g}", least, most);
  }
};

void check_values(const NamedArray& array, const Bounds& bounds) {
  int64_t first = 0, count = 0;
  const DType dtype = array.values.type.dtype;
  const auto size = static_cast<size_t>(size_of(dtype));
  array.values.scan([&](int64_t from, std::span<const std::byte> bytes) {
    for (size_t at = 0; at < bytes.size(); at += size)
      if (!bounds.hold(load_as_double(dtype, bytes.data() + at)) && count++ == 0)
        first = from + static_cast<int64_t>(at / size);
    return true;
  });
  if (count == 0) return;
  const int64_t per_sample = array.values.type.element_count() / array.values.type.shape[0];
  throw Error(fmt::format(
      "data array '{}': sample {} has {} {}, expected {} ({}): {}", array.name, first / per_sample, bounds.what,
      array.values.at(first), bounds.text(),
      per_sample == 1 ? fmt::format("{} such samples", count) : fmt::format("{} such {}s", count, bounds.what),
      bounds.remedy));
}

}  // namespace

int64_t Dataset::size() const {
  if (images) return images->size();
  if (texts) return texts->size();
  require(!arrays.empty(), "a data set has arrays");
  return arrays.front().values.type.shape.front();
}

void keep_rows(Dataset& dataset, std::span<const int64_t> rows) {
  for (NamedArray& array : dataset.arrays) {
    SampleValues& values = array.values;
    if (values.stored) {
      values = picked_rows(values, rows);
      continue;
    }
    const size_t row_bytes = values.data.size() / static_cast<size_t>(values.type.shape[0]);
    for (size_t i = 0; i < rows.size(); ++i)
      if (static_cast<size_t>(rows[i]) != i)
        std::memmove(values.data.data() + i * row_bytes, values.data.data() + static_cast<size_t>(rows[i]) * row_bytes,
                     row_bytes);
    values.type.shape[0] = static_cast<int64_t>(rows.size());
    values.data.resize(rows.size() * row_bytes);
  }
  const auto keep = [&](std::vector<int64_t>& of_set) {
    for (size_t i = 0; i < rows.size(); ++i) of_set[i] = of_set[static_cast<size_t>(rows[i])];
    of_set.resize(rows.size());
  };
  if (dataset.images) keep(dataset.images->rows);
  if (dataset.texts) keep(dataset.texts->rows);
}

Dataset make_dataset(std::vector<NamedArray> arrays) {
  if (arrays.empty()) throw Error("the data set has no arrays");
  Problems problems;
  std::optional<int64_t> samples;
  for (const NamedArray& array : arrays) {
    const Shape& shape = array.values.type.shape;
    const std::string where = "data array '" + array.name + "': ";
    if (shape.empty()) {
      problems.add(where + "a scalar, expected one entry a sample");
      continue;
    }
    if (shape[0] == 0) problems.add(where + "it has no samples");
    if (!samples) samples = shape[0];
    if (shape[0] != *samples)
      problems.add(where + std::to_string(shape[0]) + " samples, but array '" + arrays.front().name + "' has " +
                   std::to_string(*samples));
    for (const NamedArray& other : arrays)
      if (&other == &array) {
        break;
      } else if (other.name == array.name) {
        problems.add(where + "the name is given twice");
      }
  }
  problems.throw_if_any();
  for (const NamedArray& array : arrays)
    if (is_floating(array.values.type.dtype)) check_finite(array);
  return {std::move(arrays)};
}

Dataset open_tokens(const std::string& path, const std::string& tokenizer) {
  Dataset dataset;
  auto file = tokenizer.empty() ? std::make_shared<const TokenFile>(path)
                                : std::make_shared<const TokenFile>(path, *read_tokenizer(tokenizer));
  const int64_t size = file->size();
  dataset.tokens = TokenSpan{std::move(file), 0, size};
  return dataset;
}

std::optional<LabelRange> label_range(const ValueRanges& ranges, const std::string& array) {
  if (const auto found = ranges.labels_of.find(array); found != ranges.labels_of.end()) return found->second;
  if (array == ranges.labels && ranges.classes > 0) return LabelRange{ranges.classes, ranges.ignored};
  return std::nullopt;
}

void check_ranges(const Dataset& dataset, const ValueRanges& ranges) {
  if (dataset.tokens) {
    if (ranges.classes > 0) check_tokens(*dataset.tokens, ranges.classes);
    return;
  }
  for (const NamedArray& array : dataset.arrays) {
    const bool whole = !is_floating(array.values.type.dtype);
    const std::optional<LabelRange> labels = label_range(ranges, array.name);
    if (const auto rows = ranges.rows.find(array.name); whole && rows != ranges.rows.end())
      check_values(array, {-static_cast<double>(rows->second), static_cast<double>(rows->second - 1), std::nullopt,
                           "value", "the model's table has that many rows: was the data made for another vocabulary?"});
    else if (labels && labels->bounds)
      check_values(array, {labels->bounds->least, labels->bounds->most, labels->ignored, "label",
                           "its loss takes no other: repair the labels, or choose a loss that does (of classes "
                           "numbered from 0 it is softmax_cross_entropy)"});
    else if (labels && whole)
      check_values(array, {0, static_cast<double>(labels->classes - 1), labels->ignored, "label",
                           "repair the labels, or give the label that does not count as ignore_index"});
  }
}

}  // namespace halfstep
