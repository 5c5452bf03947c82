#include "data/data.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "data/byte_source.h"
#include "data/idx.h"
#include "data/npy.h"

namespace halfstep {
namespace {

Tensor read_array(const std::filesystem::path& path) {
  std::string head(kNpyMagic.size(), '\0');
  head.resize(open_data_file(path)->read(std::as_writable_bytes(std::span(head))));
  const std::unique_ptr<ByteSource> source = open_data_file(path);
  if (head == kNpyMagic) return read_npy(*source);
  if (head.starts_with(std::string_view("\0\0", 2))) return read_idx(*source);
  if (head.starts_with("PK"))
    throw Error(source->name() + ": it is an archive of several arrays: give its path alone, without a name before it");
  throw Error(source->name() + ": neither an IDX nor an NPY file");
}

std::filesystem::path find_idx_file(const std::filesystem::path& directory, const std::string& stem) {
  for (const char* suffix : {".gz", ""}) {
    std::filesystem::path candidate = directory / (stem + suffix);
    if (std::error_code ignored; std::filesystem::exists(candidate, ignored)) return candidate;
  }
  throw Error("data directory '" + directory.string() + "': neither '" + stem + ".gz' nor '" + stem +
              "' is there: give a directory with the four IDX files, or NAME=FILE,NAME=FILE");
}

Dataset open_idx_directory(const std::filesystem::path& directory, Split split) {
  const std::string prefix = split == Split::train ? "train" : "t10k";
  std::vector<NamedArray> arrays;
  arrays.push_back({"images", read_array(find_idx_file(directory, prefix + "-images-idx3-ubyte"))});
  arrays.push_back({"labels", read_array(find_idx_file(directory, prefix + "-labels-idx1-ubyte"))});
  return make_dataset(std::move(arrays));
}

Dataset open_named_files(const std::string& specification) {
  std::vector<NamedArray> arrays;
  for (size_t begin = 0; begin <= specification.size();) {
    const size_t end = std::min(specification.find(',', begin), specification.size());
    const std::string part = specification.substr(begin, end - begin);
    const size_t equals = part.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == part.size())
      throw Error("data '" + specification + "': NAME=FILE expected, '" + part + "' found");
    arrays.push_back({part.substr(0, equals), read_array(part.substr(equals + 1))});
    begin = end + 1;
  }
  return make_dataset(std::move(arrays));
}

Dataset open_npz(const std::filesystem::path& path) {
  std::vector<NamedArray> arrays;
  for (auto& [array_name, values] : read_npz(path)) arrays.push_back({array_name, std::move(values)});
  if (arrays.empty()) throw Error("data file '" + path.string() + "': the archive holds no arrays");
  return make_dataset(std::move(arrays));
}

// Index of the first element that is not finite.
std::optional<int64_t> first_non_finite(const Tensor& values) {
  if (values.type.dtype == DType::f32) {
    const std::span<const float> elements = values.as<float>();
    const auto found = std::ranges::find_if(elements, [](float v) { return !std::isfinite(v); });
    if (found == elements.end()) return std::nullopt;
    return found - elements.begin();
  }
  for (int64_t i = 0; i < values.type.element_count(); ++i)
    if (!std::isfinite(values.at(i))) return i;
  return std::nullopt;
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
  int64_t least, end;  // values are in [least, end)
  std::optional<int64_t> ignored;
  std::string what, remedy;
};

void check_values(const NamedArray& array, const Bounds& bounds) {
  const auto value = [&](int64_t i) { return static_cast<int64_t>(array.values.at(i)); };
  int64_t first = 0, count = 0;
  for (int64_t i = array.values.type.element_count(); i-- > 0;)
    if (const int64_t v = value(i); (v < bounds.least || v >= bounds.end) && v != bounds.ignored) first = i, ++count;
  if (count == 0) return;
  const int64_t per_sample = array.values.type.element_count() / array.values.type.shape[0];
  throw Error("data array '" + array.name + "': sample " + std::to_string(first / per_sample) + " has " + bounds.what +
              " " + std::to_string(value(first)) + ", expected " + std::to_string(bounds.least) + " to " +
              std::to_string(bounds.end - 1) + " (" + std::to_string(count) +
              (per_sample == 1 ? " such samples" : " such " + bounds.what + "s") + "): " + bounds.remedy);
}

}  // namespace

int64_t Dataset::size() const {
  require(!arrays.empty(), "a data set has arrays");
  return arrays.front().values.type.shape.front();
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

Dataset open_dataset(const std::string& specification, Split split) {
  std::error_code ignored;  // a path that cannot be looked at is explained when it is opened
  if (std::filesystem::is_directory(specification, ignored)) return open_idx_directory(specification, split);
  if (specification.find('=') != std::string::npos && !std::filesystem::exists(specification, ignored))
    return open_named_files(specification);
  if (specification.ends_with(".npz")) return open_npz(specification);
  // Opening it says why it cannot be read before the form is explained.
  DataFile file(specification);
  throw Error("data '" + specification +
              "': expected a directory with IDX files, NAME=FILE,NAME=FILE or one .npz file");
}

Dataset open_tokens(const std::string& path) {
  Dataset dataset;
  auto file = std::make_shared<const TokenFile>(path);
  const int64_t size = file->size();
  dataset.tokens = TokenSpan{std::move(file), 0, size};
  return dataset;
}

std::pair<Dataset, Dataset> split_tokens(const Dataset& dataset, double fraction) {
  if (!dataset.tokens) throw Error("test_fraction: only token files are split: name held-out data with test_data");
  require(fraction > 0 && fraction < 1, "a fraction is between 0 and 1");
  const TokenSpan& all = *dataset.tokens;
  const int64_t cut = all.end - static_cast<int64_t>(static_cast<double>(all.size()) * fraction);
  return {Dataset{{}, TokenSpan{all.file, all.begin, cut}}, Dataset{{}, TokenSpan{all.file, cut, all.end}}};
}

void check_ranges(const Dataset& dataset, const ValueRanges& ranges) {
  if (dataset.tokens) {
    if (ranges.classes > 0) check_tokens(*dataset.tokens, ranges.classes);
    return;
  }
  for (const NamedArray& array : dataset.arrays) {
    if (is_floating(array.values.type.dtype)) continue;
    if (const auto rows = ranges.rows.find(array.name); rows != ranges.rows.end())
      check_values(array, {-rows->second, rows->second, std::nullopt, "value",
                           "the model's table has that many rows: was the data made for another vocabulary?"});
    else if (ranges.classes > 0 && array.name == ranges.labels)
      check_values(array, {0, ranges.classes, ranges.ignored, "label",
                           "repair the labels, or give the label that does not count as ignore_index"});
  }
}

}  // namespace halfstep
