#include "data/row_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "data/npy_write.h"

namespace halfstep {
namespace {

constexpr int64_t kMostColumns = 100000;

// One element as text. `absent` stands for what is no finite number.
std::string element_text(const RowArray& array, const std::byte* element, bool json) {
  const DType type = array.row.dtype;
  const double value = load_as_double(type, element);
  if (type == DType::f64 || type == DType::f32) {
    if (json && !std::isfinite(value)) return "null";
    return type == DType::f64 ? fmt::format("{}", value) : fmt::format("{}", static_cast<float>(value));
  }
  if (type == DType::boolean && json) return value != 0 ? "true" : "false";
  if (type == DType::i64) return fmt::format("{}", *reinterpret_cast<const int64_t*>(element));
  return fmt::format("{}", static_cast<int64_t>(value));
}

const std::string* value_name(const RowArray& array, const std::byte* element) {
  if (array.value_names.empty()) return nullptr;
  const double value = load_as_double(array.row.dtype, element);
  return value >= 0 && value < static_cast<double>(array.value_names.size())
             ? &array.value_names[static_cast<size_t>(value)]
             : nullptr;
}

// ---- CSV, as RFC 4180 ----

std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string csv_header(const std::vector<RowArray>& arrays) {
  std::string line = "sample";
  for (const RowArray& array : arrays) {
    const int64_t count = array.row.element_count();
    for (int64_t i = 0; i < count; ++i) {
      const auto index = static_cast<size_t>(i);
      const std::string element = index < array.elements.size() ? array.elements[index] : std::to_string(i);
      line += "," + csv_text(array.name + (count == 1 && array.elements.empty() ? "" : "_" + element));
    }
  }
  return line + "\n";
}

class CsvSink final : public RowSink {
 public:
  CsvSink(FileSink& file, const std::vector<RowArray>& arrays) : file_(file), arrays_(arrays) {
    file_.write(csv_header(arrays));
  }
  void add(std::span<const std::span<const std::byte>> arrays, int64_t rows) override {
    std::string text;
    for (int64_t row = 0; row < rows; ++row) {
      text += std::to_string(sample_++);
      for (size_t a = 0; a < arrays_.size(); ++a) {
        const int64_t count = arrays_[a].row.element_count(), bytes = size_of(arrays_[a].row.dtype);
        const std::byte* element = arrays[a].data() + row * count * bytes;
        for (int64_t i = 0; i < count; ++i, element += bytes) {
          const std::string* const name = value_name(arrays_[a], element);
          text += ",";
          text += name ? csv_text(*name) : element_text(arrays_[a], element, false);
        }
      }
      text += "\n";
    }
    file_.write(text);
  }

 private:
  FileSink& file_;
  const std::vector<RowArray>& arrays_;
  int64_t sample_ = 0;
};

void write_csv(const std::filesystem::path& path, const std::vector<RowArray>& arrays, int64_t, const FillRows& fill) {
  int64_t columns = 0;
  for (const RowArray& array : arrays) {
    columns += std::min(array.row.element_count(), kMostColumns + 1);
    if (columns > kMostColumns)
      throw Error(
          fmt::format("'{}': output '{}' has {} numbers a sample, and CSV holds {} columns at most: write .npz "
                      "or .npy",
                      path.string(), array.name, array.row.element_count(), kMostColumns));
  }
  write_file_atomically(path, [&](FileSink& file) {
    CsvSink sink(file, arrays);
    fill(sink);
  });
}

// ---- JSON lines ----

std::string json_string(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      quoted += std::string("\\") + c;
    else if (static_cast<unsigned char>(c) < 0x20)
      quoted += fmt::format("\\u{:04x}", static_cast<int>(c));
    else
      quoted += c;
  }
  return quoted + "\"";
}

class JsonSink final : public RowSink {
 public:
  JsonSink(FileSink& file, const std::vector<RowArray>& arrays) : file_(file), arrays_(arrays) {}
  void add(std::span<const std::span<const std::byte>> arrays, int64_t rows) override {
    std::string text;
    for (int64_t row = 0; row < rows; ++row) {
      text += fmt::format("{{\"sample\":{}", sample_++);
      for (size_t a = 0; a < arrays_.size(); ++a) {
        text += "," + json_string(arrays_[a].name) + ":";
        const std::byte* element =
            arrays[a].data() + row * arrays_[a].row.element_count() * size_of(arrays_[a].row.dtype);
        nested(text, arrays_[a], 0, element);
      }
      text += "}\n";
    }
    file_.write(text);
  }

 private:
  // A list for each axis.
  static void nested(std::string& text, const RowArray& array, size_t axis, const std::byte*& element) {
    if (axis == array.row.shape.size()) {
      const std::string* const name = value_name(array, element);
      text += name ? json_string(*name) : element_text(array, element, true);
      element += size_of(array.row.dtype);
      return;
    }
    text += "[";
    for (int64_t i = 0; i < array.row.shape[axis]; ++i) {
      if (i > 0) text += ",";
      nested(text, array, axis + 1, element);
    }
    text += "]";
  }

  FileSink& file_;
  const std::vector<RowArray>& arrays_;
  int64_t sample_ = 0;
};

void write_jsonl(const std::filesystem::path& path, const std::vector<RowArray>& arrays, int64_t,
                 const FillRows& fill) {
  write_file_atomically(path, [&](FileSink& file) {
    JsonSink sink(file, arrays);
    fill(sink);
  });
}

// ---- NumPy's ----

TensorType whole(const RowArray& array, int64_t samples) {
  TensorType type = array.row;
  type.shape.insert(type.shape.begin(), samples);
  return type;
}

class PieceSink final : public RowSink {
 public:
  explicit PieceSink(std::vector<std::function<void(std::span<const std::byte>)>> pieces)
      : pieces_(std::move(pieces)) {}
  void add(std::span<const std::span<const std::byte>> arrays, int64_t) override {
    for (size_t a = 0; a < pieces_.size(); ++a) pieces_[a](arrays[a]);
  }

 private:
  std::vector<std::function<void(std::span<const std::byte>)>> pieces_;
};

void write_one_npy(const std::filesystem::path& path, const std::vector<RowArray>& arrays, int64_t samples,
                   const FillRows& fill) {
  if (arrays.size() != 1)
    throw Error(fmt::format("'{}' holds one array, and there are {}: write .npz", path.string(), arrays.size()));
  write_npy(path, whole(arrays[0], samples), [&](FileSink& file) {
    PieceSink sink({[&](std::span<const std::byte> bytes) { file.write(bytes); }});
    fill(sink);
  });
}

void write_all_npz(const std::filesystem::path& path, const std::vector<RowArray>& arrays, int64_t samples,
                   const FillRows& fill) {
  std::vector<std::pair<std::string, TensorType>> members;
  for (const RowArray& array : arrays) members.emplace_back(array.name, whole(array, samples));
  NpzSpool spool(path, members);
  std::vector<std::function<void(std::span<const std::byte>)>> pieces;
  for (size_t a = 0; a < arrays.size(); ++a)
    pieces.emplace_back([&spool, a](std::span<const std::byte> bytes) { spool.add(a, bytes); });
  PieceSink sink(std::move(pieces));
  fill(sink);
  spool.finish();
}

constexpr RowFormat kFormats[] = {
    {".npz", "every output under its name, as numpy.savez writes them", write_all_npz},
    {".npy", "the only output", write_one_npy},
    {".csv", "a line a sample, a column for each number", write_csv},
    {".jsonl", "a JSON object a sample", write_jsonl},
};

}  // namespace

std::span<const RowFormat> row_formats() { return kFormats; }

const RowFormat* row_format(const std::filesystem::path& path) {
  const auto found = std::ranges::find(kFormats, path.extension().string(), &RowFormat::ending);
  return found == std::end(kFormats) ? nullptr : found;
}

std::string row_format_endings() {
  std::string text;
  for (size_t i = 0; i < std::size(kFormats); ++i)
    text += (i == 0 ? "" : i + 1 == std::size(kFormats) ? " or " : ", ") + std::string(kFormats[i].ending);
  return text;
}

void write_rows(const std::filesystem::path& path, const std::vector<RowArray>& arrays, int64_t samples,
                const FillRows& fill) {
  const RowFormat* const format = row_format(path);
  if (format == nullptr)
    throw Error(fmt::format("'{}': a file that ends in {} expected", path.string(), row_format_endings()));
  format->write(path, arrays, samples, fill);
}

}  // namespace halfstep
