#include "data/readers.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "data/idx.h"
#include "data/npy.h"

namespace halfstep {
namespace {

// "IDX or NPY", "a, b or c"
std::string alternatives(const auto& rows) {
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i)
    text += (i == 0 ? "" : i + 1 == rows.size() ? " or " : ", ") + std::string(rows[i].form);
  return text;
}

Tensor read_array(const std::filesystem::path& path) {
  constexpr size_t kHead = 16;  // longer than any magic
  std::string head(kHead, '\0');
  head.resize(open_data_file(path)->read(std::as_writable_bytes(std::span(head))));
  const std::unique_ptr<ByteSource> source = open_data_file(path);
  for (const ArrayReader& reader : array_readers())
    if (head.starts_with(reader.magic)) return reader.read(*source);
  if (head.starts_with("PK"))
    throw Error(source->name() + ": it is an archive of several arrays: give its path alone, without a name before it");
  throw Error(source->name() + ": an " + alternatives(array_readers()) + " file expected");
}

std::filesystem::path find_idx_file(const std::filesystem::path& directory, const std::string& stem) {
  for (const char* suffix : {".gz", ""}) {
    std::filesystem::path candidate = directory / (stem + suffix);
    if (std::error_code ignored; std::filesystem::exists(candidate, ignored)) return candidate;
  }
  throw Error("data directory '" + directory.string() + "': neither '" + stem + ".gz' nor '" + stem +
              "' is there: give a directory with the four IDX files, or NAME=FILE,NAME=FILE");
}

Dataset open_idx_directory(const std::string& directory, Split split) {
  const std::string prefix = split == Split::train ? "train" : "t10k";
  std::vector<NamedArray> arrays;
  arrays.push_back({"images", read_array(find_idx_file(directory, prefix + "-images-idx3-ubyte"))});
  arrays.push_back({"labels", read_array(find_idx_file(directory, prefix + "-labels-idx1-ubyte"))});
  return make_dataset(std::move(arrays));
}

Dataset open_named_files(const std::string& specification, Split) {
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

Dataset open_npz(const std::string& path, Split) {
  std::vector<NamedArray> arrays;
  for (auto& [array_name, values] : read_npz(path)) arrays.push_back({array_name, std::move(values)});
  if (arrays.empty()) throw Error("data file '" + path + "': the archive holds no arrays");
  return make_dataset(std::move(arrays));
}

bool is_directory(const std::string& specification) {
  std::error_code ignored;  // a path that cannot be looked at is explained when it is opened
  return std::filesystem::is_directory(specification, ignored);
}
bool names_files(const std::string& specification) {
  std::error_code ignored;
  return specification.find('=') != std::string::npos && !std::filesystem::exists(specification, ignored);
}

constexpr ArrayReader kArrayReaders[] = {
    {"IDX", std::string_view("\0\0", 2), read_idx},
    {"NPY", kNpyMagic, read_npy},
};

constexpr DatasetReader kDatasetReaders[] = {
    {"a directory with IDX files", is_directory, open_idx_directory},
    {"NAME=FILE,NAME=FILE", names_files, open_named_files},
    {"one .npz file", [](const std::string& path) { return path.ends_with(".npz"); }, open_npz},
};

}  // namespace

std::span<const ArrayReader> array_readers() { return kArrayReaders; }
std::span<const DatasetReader> dataset_readers() { return kDatasetReaders; }

Dataset open_dataset(const std::string& specification, Split split) {
  for (const DatasetReader& reader : dataset_readers())
    if (reader.takes(specification)) return reader.open(specification, split);
  // Opening it says why it cannot be read before the form is explained.
  DataFile file(specification);
  throw Error("data '" + specification + "': expected " + alternatives(dataset_readers()));
}

}  // namespace halfstep
