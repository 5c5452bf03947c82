#include "data/readers.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "data/hdf5.h"
#include "data/idx.h"
#include "data/image_folder.h"
#include "data/npy.h"
#include "data/shards.h"
#include "data/table.h"

namespace halfstep {
namespace {

// "IDX or NPY", "a, b or c"
std::string alternatives(const auto& rows) {
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i)
    text += (i == 0 ? "" : i + 1 == rows.size() ? " or " : ", ") + std::string(rows[i].form);
  return text;
}

SampleValues read_array(const std::filesystem::path& path, const DataOptions& options) {
  if (const auto named = hdf5_name(path.string())) {
    if (named->second == "/")
      throw Error("data file '" + path.string() + "': it may hold several datasets: name one as '" + path.string() +
                  ":/NAME', or give its path alone, without a name before it");
    return read_hdf5(named->first, named->second, options.data_memory.bytes);
  }
  constexpr size_t kHead = 16;  // longer than any magic
  std::string head(kHead, '\0');
  head.resize(open_data_file(path)->read(std::as_writable_bytes(std::span(head))));
  const std::unique_ptr<ByteSource> source = open_data_file(path);
  for (const ArrayReader& reader : array_readers())
    if (head.starts_with(reader.magic)) return reader.read(*source, options.data_memory.bytes);
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
              "' is there: give a directory with the four IDX files or folders of PNG and JPEG files, or "
              "NAME=FILE,NAME=FILE");
}

Dataset open_idx_directory(const DataRequest& request) {
  const std::string& directory = request.specification;
  const std::string prefix = request.split == Split::train ? "train" : "t10k";
  std::vector<NamedArray> arrays;
  arrays.push_back({"images", read_array(find_idx_file(directory, prefix + "-images-idx3-ubyte"), request.options)});
  arrays.push_back({"labels", read_array(find_idx_file(directory, prefix + "-labels-idx1-ubyte"), request.options)});
  return make_dataset(std::move(arrays));
}

Dataset open_named_files(const DataRequest& request) {
  const std::string& specification = request.specification;
  std::vector<NamedArray> arrays;
  for (size_t begin = 0; begin <= specification.size();) {
    const size_t end = std::min(specification.find(',', begin), specification.size());
    const std::string part = specification.substr(begin, end - begin);
    const size_t equals = part.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == part.size())
      throw Error("data '" + specification + "': NAME=FILE expected, '" + part + "' found");
    arrays.push_back({part.substr(0, equals), read_array(part.substr(equals + 1), request.options)});
    begin = end + 1;
  }
  return make_dataset(std::move(arrays));
}

Dataset open_npz(const DataRequest& request) {
  const std::string& path = request.specification;
  std::vector<NamedArray> arrays;
  for (auto& [array_name, values] : read_npz_samples(path, request.options.data_memory.bytes))
    arrays.push_back({array_name, std::move(values)});
  if (arrays.empty()) throw Error("data file '" + path + "': the archive holds no arrays");
  return make_dataset(std::move(arrays));
}

// Its root's datasets by their names, or the one that is named.
Dataset open_hdf5(const DataRequest& request) {
  const auto [file, dataset] = *hdf5_name(request.specification);
  std::vector<std::string> names{dataset};
  if (dataset == "/") names = hdf5_datasets(file);
  if (names.empty())
    throw Error("data file '" + file + "': there is no dataset at its root: name one as '" + file + ":/GROUP/NAME'");
  std::vector<NamedArray> arrays;
  for (const std::string& name : names)
    arrays.push_back({name.substr(name.rfind('/') + 1), read_hdf5(file, name, request.options.data_memory.bytes)});
  return make_dataset(std::move(arrays));
}

bool names_parquet(const std::string& path) {
  return path.ends_with(".parquet") && path.find('=') == std::string::npos;
}

[[noreturn]] void refuse_parquet(const std::string& path) {
  const std::string table = path.substr(0, path.size() - std::string_view(".parquet").size()) + ".csv";
  throw Error("data '" + path +
              "': Parquet is not read; pyarrow makes a table of it: python3 -c \"import pyarrow.csv, pyarrow.parquet; "
              "pyarrow.csv.write_csv(pyarrow.parquet.read_table('" +
              path + "'), '" + table + "')\"");
}

bool names_table(const std::string& specification) {
  constexpr std::string_view kEnds[] = {".csv", ".tsv", ".csv.gz", ".tsv.gz"};
  return specification.find('=') == std::string::npos &&
         std::ranges::any_of(kEnds, [&](std::string_view end) { return specification.ends_with(end); });
}

Dataset open_table(const DataRequest& request) {
  return read_table([&] { return open_data_file(request.specification); }, request);
}

// What comes in is written to a file without a name, since archives are read from their end and tables twice.
class StandardInput {
 public:
  StandardInput() : file_(std::tmpfile()) {
    if (file_ == nullptr) throw Error(std::string("standard input: no temporary file for it: ") + std::strerror(errno));
    std::vector<char> piece(size_t{1} << 20);
    for (;;) {
      const ssize_t got = ::read(STDIN_FILENO, piece.data(), piece.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail();
      if (got == 0) break;
      for (ssize_t done = 0; done < got;) {
        const ssize_t wrote = ::write(::fileno(file_), piece.data() + done, static_cast<size_t>(got - done));
        if (wrote < 0 && errno != EINTR) fail();
        done += std::max<ssize_t>(wrote, 0);
      }
    }
  }
  ~StandardInput() {
    if (file_ != nullptr) std::fclose(file_);
  }
  StandardInput(const StandardInput&) = delete;
  StandardInput& operator=(const StandardInput&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(::fileno(file_)); }

 private:
  [[noreturn]] static void fail() {
    throw Error(std::string("standard input cannot be kept in a temporary file: ") + std::strerror(errno));
  }
  std::FILE* file_;
};

Dataset open_standard_input(const DataRequest& request) {
  const StandardInput input;
  const std::string path = input.path();
  const auto said = [&](std::string text) {
    for (size_t at = 0; (at = text.find(path, at)) != std::string::npos;) text.replace(at, path.size(), "-");
    return text;
  };
  try {
    std::string head(4, '\0');
    head.resize(open_data_file(path)->read(std::as_writable_bytes(std::span(head))));
    if (head.empty()) throw Error("standard input: nothing came: it is read once, for data or for test_data");
    DataRequest of_file = request;
    of_file.specification = path;
    Dataset dataset = head.starts_with("PK") ? open_npz(of_file) : open_table(of_file);
    for (std::string& remark : dataset.remarks) remark = said(remark);
    return dataset;
  } catch (const Error& e) {
    throw Error(said(e.what()));
  }
}

bool is_directory(const std::string& specification) {
  std::error_code ignored;  // a path that cannot be looked at is explained when it is opened
  return std::filesystem::is_directory(specification, ignored);
}
bool is_idx_directory(const std::string& specification) {
  std::error_code ignored;
  for (const char* name : {"train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"})
    for (const char* suffix : {".gz", ""})
      if (std::filesystem::exists(std::filesystem::path(specification) / (std::string(name) + suffix), ignored))
        return true;
  return false;
}
bool names_files(const std::string& specification) {
  std::error_code ignored;
  return specification.find('=') != std::string::npos && !std::filesystem::exists(specification, ignored);
}

constexpr ArrayReader kArrayReaders[] = {
    {"IDX", std::string_view("\0\0", 2), read_idx_samples},
    {"NPY", kNpyMagic, read_npy_samples},
};

constexpr DatasetReader kDatasetReaders[] = {
    {"a folder of images by class",
     [](const std::string& path) { return is_image_folder(path) && !is_idx_directory(path); }, open_image_folder,
     has_held_out_folder, true},
    {"a directory with IDX files", is_directory, open_idx_directory, is_directory},
    {"NAME=FILE,NAME=FILE", names_files, open_named_files},
    {"one .npz file", [](const std::string& path) { return path.ends_with(".npz"); }, open_npz},
    {"tar shards",
     [](const std::string& path) { return path.ends_with(".tar") && path.find('=') == std::string::npos; },
     open_tar_shards},
    {"an .h5 file or FILE.h5:/DATASET",
     [](const std::string& path) { return path.find('=') == std::string::npos && hdf5_name(path).has_value(); },
     open_hdf5},
    {"a .csv or .tsv file", names_table, open_table, nullptr, true},
    {"- (standard input: an .npz file or a table)", [](const std::string& path) { return path == "-"; },
     open_standard_input},
};

}  // namespace

std::span<const ArrayReader> array_readers() { return kArrayReaders; }
std::span<const DatasetReader> dataset_readers() { return kDatasetReaders; }

namespace {

const DatasetReader* reader_of(const std::string& specification) {
  const auto found =
      std::ranges::find_if(dataset_readers(), [&](const DatasetReader& r) { return r.takes(specification); });
  return found == dataset_readers().end() ? nullptr : &*found;
}

}  // namespace

Dataset open_dataset(const std::string& specification, Split split, const DataOptions& options,
                     const DataFacts& facts) {
  if (names_parquet(specification)) refuse_parquet(specification);
  if (const DatasetReader* reader = reader_of(specification))
    return reader->open({specification, split, options, facts});
  // Opening it says why it cannot be read before the form is explained.
  DataFile file(specification);
  throw Error("data '" + specification + "': expected " + alternatives(dataset_readers()));
}

bool has_test_part(const std::string& specification) {
  const DatasetReader* reader = reader_of(specification);
  return reader != nullptr && reader->has_test_part != nullptr && reader->has_test_part(specification);
}

bool teaches(const std::string& specification) {
  const DatasetReader* reader = reader_of(specification);
  return reader != nullptr && reader->teaches;
}

}  // namespace halfstep
