// What a model gives for a data set, a row a sample, as a file: in constant memory, and whole or not at all. A format
// is a row of a table.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.h"

namespace halfstep {

// One array of the file: in CSV a column for each element of a sample.
struct RowArray {
  std::string name;
  TensorType row;                          // of one sample
  std::vector<std::string> elements{};     // names of a row's elements; empty: numbers
  std::vector<std::string> value_names{};  // of integers: what texts say in their place
  friend bool operator==(const RowArray&, const RowArray&) = default;
};

class RowSink {
 public:
  virtual ~RowSink() = default;
  // The next `rows` samples: bytes of each array, as many rows of it.
  virtual void add(std::span<const std::span<const std::byte>> arrays, int64_t rows) = 0;
};

using FillRows = std::function<void(RowSink&)>;

struct RowFormat {
  std::string_view ending;  // ".csv"
  std::string_view what;
  void (*write)(const std::filesystem::path& path, const std::vector<RowArray>& arrays, int64_t samples,
                const FillRows& fill);
};
std::span<const RowFormat> row_formats();
// nullptr: none has the ending.
const RowFormat* row_format(const std::filesystem::path& path);
// ".npz, .npy, .csv or .jsonl"
std::string row_format_endings();

// In the format of `path`'s ending; `fill` gives exactly `samples` rows. On any error, one of `fill` too, nothing
// stands at `path` that was not there before. Error where the format cannot hold the arrays.
void write_rows(const std::filesystem::path& path, const std::vector<RowArray>& arrays, int64_t samples,
                const FillRows& fill);

}  // namespace halfstep
