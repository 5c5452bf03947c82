#include "data/hdf5.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <mutex>
#include <system_error>

#include "base/checked.h"
#include "base/error.h"
#include "base/printable.h"

namespace halfstep {
namespace {

// Types, values and functions of HDF5 1.10's C interface, which later versions keep.
using Id = int64_t;         // hid_t
using Size = uint64_t;      // hsize_t
constexpr Id kDefault = 0;  // H5P_DEFAULT, H5E_DEFAULT, H5S_ALL
constexpr unsigned kReadOnly = 0;
constexpr int kByName = 0, kIncreasing = 0, kSelect = 0;
constexpr int kDatasetId = 5;
constexpr int kMostAxes = 32;
enum TypeClass : int { kInteger = 0, kFloat = 1, kEnumeration = 8 };

struct GroupInfo {
  int storage;
  Size links;
  int64_t most_order;
  bool mounted;
};

struct Library {
  int (*H5open)() = nullptr;
  int (*H5get_libversion)(unsigned*, unsigned*, unsigned*) = nullptr;
  int (*H5Eset_auto2)(Id, void*, void*) = nullptr;
  Id (*H5Fopen)(const char*, unsigned, Id) = nullptr;
  int (*H5Gget_info)(Id, GroupInfo*) = nullptr;
  ptrdiff_t (*H5Lget_name_by_idx)(Id, const char*, int, int, Size, char*, size_t, Id) = nullptr;
  Id (*H5Oopen)(Id, const char*, Id) = nullptr;
  int (*H5Iget_type)(Id) = nullptr;
  int (*H5Idec_ref)(Id) = nullptr;
  Id (*H5Dopen2)(Id, const char*, Id) = nullptr;
  Id (*H5Dget_space)(Id) = nullptr;
  Id (*H5Dget_type)(Id) = nullptr;
  Size (*H5Dget_storage_size)(Id) = nullptr;
  int (*H5Dread)(Id, Id, Id, Id, Id, void*) = nullptr;
  int (*H5Sget_simple_extent_ndims)(Id) = nullptr;
  int (*H5Sget_simple_extent_dims)(Id, Size*, Size*) = nullptr;
  int (*H5Sselect_hyperslab)(Id, int, const Size*, const Size*, const Size*, const Size*) = nullptr;
  Id (*H5Screate_simple)(int, const Size*, const Size*) = nullptr;
  int (*H5Tget_class)(Id) = nullptr;
  size_t (*H5Tget_size)(Id) = nullptr;
  int (*H5Tget_sign)(Id) = nullptr;
  int (*H5Tget_nmembers)(Id) = nullptr;
  int (*H5Tget_member_value)(Id, unsigned, void*) = nullptr;
  Id *u8 = nullptr, *i8 = nullptr, *i32 = nullptr, *i64 = nullptr, *f32 = nullptr, *f64 = nullptr;
};

// Debian's names first, then those of the library's own builds.
constexpr std::array<const char*, 7> kNames{
    "libhdf5_serial.so.103", "libhdf5_serial.so.310", "libhdf5.so.103", "libhdf5.so.200",
    "libhdf5.so.310",        "libhdf5_serial.so",     "libhdf5.so"};

Library load_library() {
  void* library = nullptr;
  for (size_t i = 0; i < kNames.size() && library == nullptr; ++i) library = ::dlopen(kNames[i], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(
        "HDF5 files need the HDF5 library, version 1.10 or later, which is not installed: on Debian it is the package "
        "libhdf5-103-1 (" +
        std::string(::dlerror()) + ")");
  Library l;
  const auto find = [&](auto*& pointer, const char* name) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(::dlsym(library, name));
    if (pointer == nullptr) throw Error(fmt::format("the HDF5 library has no '{}': 1.10 or later expected", name));
  };
  find(l.H5open, "H5open"), find(l.H5get_libversion, "H5get_libversion"), find(l.H5Eset_auto2, "H5Eset_auto2");
  unsigned major = 0, minor = 0, release = 0;
  if (l.H5open() < 0 || l.H5get_libversion(&major, &minor, &release) < 0 || (major == 1 && minor < 10))
    throw Error(fmt::format("the HDF5 library is version {}.{}: 1.10 or later expected", major, minor));
  l.H5Eset_auto2(kDefault, nullptr, nullptr);  // it would print
  find(l.H5Fopen, "H5Fopen"), find(l.H5Gget_info, "H5Gget_info"), find(l.H5Lget_name_by_idx, "H5Lget_name_by_idx");
  find(l.H5Oopen, "H5Oopen"), find(l.H5Iget_type, "H5Iget_type"), find(l.H5Idec_ref, "H5Idec_ref");
  find(l.H5Dopen2, "H5Dopen2"), find(l.H5Dget_space, "H5Dget_space"), find(l.H5Dget_type, "H5Dget_type");
  find(l.H5Dget_storage_size, "H5Dget_storage_size"), find(l.H5Dread, "H5Dread");
  find(l.H5Sget_simple_extent_ndims, "H5Sget_simple_extent_ndims");
  find(l.H5Sget_simple_extent_dims, "H5Sget_simple_extent_dims");
  find(l.H5Sselect_hyperslab, "H5Sselect_hyperslab"), find(l.H5Screate_simple, "H5Screate_simple");
  find(l.H5Tget_class, "H5Tget_class"), find(l.H5Tget_size, "H5Tget_size"), find(l.H5Tget_sign, "H5Tget_sign");
  find(l.H5Tget_nmembers, "H5Tget_nmembers"), find(l.H5Tget_member_value, "H5Tget_member_value");
  find(l.u8, "H5T_NATIVE_UINT8_g"), find(l.i8, "H5T_NATIVE_INT8_g"), find(l.i32, "H5T_NATIVE_INT32_g");
  find(l.i64, "H5T_NATIVE_INT64_g"), find(l.f32, "H5T_NATIVE_FLOAT_g"), find(l.f64, "H5T_NATIVE_DOUBLE_g");
  return l;
}

const Library& hdf5() {
  static const Library loaded = load_library();
  return loaded;
}

// The library is for one thread at a time.
std::mutex& one_at_a_time() {
  static std::mutex mutex;
  return mutex;
}

// Closed at its end, within the lock.
class Handle {
 public:
  Handle(Id id, const std::string& problem) : id_(id) {
    if (id < 0) throw Error(problem);
  }
  ~Handle() { hdf5().H5Idec_ref(id_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator Id() const { return id_; }

 private:
  Id id_;
};

std::string corrupt(const std::string& where) {
  return where + ": HDF5 cannot read it: is it cut off or corrupt? Has another program it open for writing?";
}

// At 0, or behind a block of the user's, which MATLAB writes.
bool has_signature(const DataFile& file) {
  constexpr std::string_view kSignature = "\x89HDF\r\n\x1a\n";
  constexpr int64_t kLargestBlock = 1 << 20;
  for (int64_t at = 0; at <= kLargestBlock; at = at == 0 ? 512 : 2 * at) {
    std::array<std::byte, kSignature.size()> head{};
    if (file.read_at(at, head) != head.size()) return false;
    if (std::memcmp(head.data(), kSignature.data(), head.size()) == 0) return true;
  }
  return false;
}

std::unique_ptr<Handle> open_file(const std::string& path) {
  const DataFile file(path);  // says why it cannot be opened
  if (!has_signature(file)) throw Error("data file " + file.name() + ": it is no HDF5 file");
  return std::make_unique<Handle>(hdf5().H5Fopen(path.c_str(), kReadOnly, kDefault),
                                  corrupt("data file " + file.name()));
}

std::vector<std::string> names_at_root(Id file, const std::string& where) {
  GroupInfo info{};
  if (hdf5().H5Gget_info(file, &info) < 0) throw Error(corrupt(where));
  std::vector<std::string> names;
  for (Size i = 0; i < info.links; ++i) {
    const ptrdiff_t length = hdf5().H5Lget_name_by_idx(file, "/", kByName, kIncreasing, i, nullptr, 0, kDefault);
    if (length < 0) throw Error(corrupt(where));
    std::string name(static_cast<size_t>(length) + 1, '\0');
    if (hdf5().H5Lget_name_by_idx(file, "/", kByName, kIncreasing, i, name.data(), name.size(), kDefault) < 0)
      throw Error(corrupt(where));
    name.pop_back();
    const Id object = hdf5().H5Oopen(file, name.c_str(), kDefault);
    if (object < 0)
      throw Error(
          fmt::format("{}: the HDF5 library cannot open '/{}': it is a link to nowhere, or of a later version of the "
                      "format: name the datasets that are wanted, each as NAME=FILE:/DATASET",
                      where, printable(name)));
    const Handle closed(object, "");
    if (hdf5().H5Iget_type(object) == kDatasetId) names.push_back(std::move(name));
  }
  return names;
}

// A type that values are read as.
struct ReadAs {
  DType dtype;
  Id type;
};

// As h5py writes them: an enumeration of two names, in one byte, that stand for 0 and 1.
bool are_truth_values(Id type) {
  const Library& l = hdf5();
  if (l.H5Tget_class(type) != kEnumeration || l.H5Tget_size(type) != 1 || l.H5Tget_nmembers(type) != 2) return false;
  uint8_t first = 0, second = 0;
  return l.H5Tget_member_value(type, 0, &first) >= 0 && l.H5Tget_member_value(type, 1, &second) >= 0 &&
         std::max(first, second) == 1 && std::min(first, second) == 0;
}

ReadAs read_as(Id type, const std::string& where) {
  const Library& l = hdf5();
  const int kind = l.H5Tget_class(type);
  const size_t size = l.H5Tget_size(type);
  const bool is_signed = kind == kInteger && l.H5Tget_sign(type) != 0;
  if (kind == kFloat && (size == 2 || size == 4)) return {DType::f32, *l.f32};
  if (kind == kFloat && size == 8) return {DType::f64, *l.f64};
  if (are_truth_values(type)) return {DType::boolean, type};
  if (kind == kInteger && size == 1) return is_signed ? ReadAs{DType::i8, *l.i8} : ReadAs{DType::u8, *l.u8};
  if (kind == kInteger && (size == 2 || (size == 4 && is_signed))) return {DType::i32, *l.i32};
  if (kind == kInteger && (size == 4 || (size == 8 && is_signed))) return {DType::i64, *l.i64};
  throw Error(where +
              (kind == kEnumeration ? ": its elements are names of an enumeration"
               : kind == kInteger
                   ? ": integers of " + std::to_string(8 * size) + " bits without a sign are not supported"
                   : ": its elements are no numbers") +
              ": store it as float16, float32, float64, bool or integers up to int64");
}

class Hdf5Rows final : public SampleRows {
 public:
  Hdf5Rows(const std::string& path, const std::string& dataset, std::string where)
      : path_(path), where_(std::move(where)), file_(open_file(path)) {
    std::error_code unreadable;
    file_bytes_ = std::filesystem::file_size(path, unreadable);
    if (unreadable) throw Error(corrupt(where_));
    const Id found = hdf5().H5Dopen2(*file_, dataset.c_str(), kDefault);
    if (found < 0) {
      const std::vector<std::string> names = names_at_root(*file_, where_);
      const std::string near = nearest(dataset.substr(std::min(dataset.find_first_not_of('/'), dataset.size())), names);
      throw Error(fmt::format("{}: there is no such dataset{}", where_,
                              !near.empty()   ? "; did you mean '/" + near + "'?"
                              : names.empty() ? ""
                                              : fmt::format("; at its root are {}", fmt::join(names, ", "))));
    }
    dataset_ = std::make_unique<Handle>(found, "");
    own_type_ = std::make_unique<Handle>(hdf5().H5Dget_type(*dataset_), corrupt(where_));
    as_ = std::make_unique<ReadAs>(read_as(*own_type_, where_));
    const Handle space(hdf5().H5Dget_space(*dataset_), corrupt(where_));
    const int axes = hdf5().H5Sget_simple_extent_ndims(space);
    if (axes < 0 || axes > kMostAxes) throw Error(corrupt(where_));
    std::array<Size, kMostAxes> sizes{};
    hdf5().H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    type_.dtype = as_->dtype;
    for (int i = 0; i < axes; ++i) {
      if (sizes[static_cast<size_t>(i)] > static_cast<Size>(std::numeric_limits<int64_t>::max()))
        throw Error(corrupt(where_));
      type_.shape.push_back(static_cast<int64_t>(sizes[static_cast<size_t>(i)]));
    }
    check_size();
  }
  ~Hdf5Rows() override {
    const std::lock_guard lock(one_at_a_time());
    own_type_.reset(), dataset_.reset(), file_.reset();
  }
  Hdf5Rows(const Hdf5Rows&) = delete;
  Hdf5Rows& operator=(const Hdf5Rows&) = delete;

  const TensorType& type() const { return type_; }

  void read(int64_t first, std::span<std::byte> into) const override {
    const std::lock_guard lock(one_at_a_time());
    read_unlocked(first, into);
  }
  void read_unlocked(int64_t first, std::span<std::byte> into) const {
    if (into.empty()) return;
    // The library reads what is gone as zeros.
    std::error_code unreadable;
    if (std::filesystem::file_size(path_, unreadable) < file_bytes_ || unreadable)
      throw Error(fmt::format("{}: sample {}: the file became shorter while it was read", where_, first));
    std::vector<Size> start(type_.shape.size()), count(type_.shape.begin(), type_.shape.end());
    const std::string problem =
        fmt::format("{}: HDF5 cannot read sample {}: is the file cut off, or corrupt?", where_, first);
    if (start.empty()) {
      if (hdf5().H5Dread(*dataset_, as_->type, kDefault, kDefault, kDefault, into.data()) < 0) throw Error(problem);
      return;
    }
    const int64_t row_bytes = type_.byte_count() / type_.shape[0];
    start[0] = static_cast<Size>(first), count[0] = into.size() / static_cast<Size>(row_bytes);
    const auto axes = static_cast<int>(count.size());
    const Handle space(hdf5().H5Dget_space(*dataset_), problem);
    const Handle memory(hdf5().H5Screate_simple(axes, count.data(), nullptr), problem);
    if (hdf5().H5Sselect_hyperslab(space, kSelect, start.data(), nullptr, count.data(), nullptr) < 0 ||
        hdf5().H5Dread(*dataset_, as_->type, memory, space, kDefault, into.data()) < 0)
      throw Error(problem);
  }

 private:
  void check_size() const {
    constexpr int64_t kMostExpansion = 1032, kSlack = 1024;  // of deflate, see byte_source.cpp
    const std::string what = where_ + ": " + to_string(type_);
    const int64_t bytes = checked_mul(checked_element_count(type_.shape, what), size_of(type_.dtype), what);
    // What the header says is stored is no more than the file.
    const auto stored = static_cast<int64_t>(
        std::min<Size>({hdf5().H5Dget_storage_size(*dataset_), file_bytes_,
                        static_cast<Size>(std::numeric_limits<int64_t>::max() / (2 * kMostExpansion))}));
    if (bytes > stored * kMostExpansion + kSlack || (bytes > 0 && stored == 0))
      throw Error(fmt::format(
          "{}: it says that it is {}, {} bytes, and the file stores {} of it: if it is whole, write it again "
          "with gzip or unpacked, all of its elements",
          where_, to_string(type_), bytes, stored));
  }

  std::filesystem::path path_;
  std::string where_;
  Size file_bytes_ = 0;
  std::unique_ptr<Handle> file_, dataset_, own_type_;
  std::unique_ptr<ReadAs> as_;
  TensorType type_;
};

}  // namespace

std::optional<std::pair<std::string, std::string>> hdf5_name(const std::string& specification) {
  for (const std::string_view ending : {".h5", ".hdf5", ".hdf"}) {
    if (specification.ends_with(ending)) return std::pair(specification, std::string("/"));
    const size_t at = specification.find(std::string(ending) + ":");
    if (at == std::string::npos) continue;
    std::string dataset = specification.substr(at + ending.size() + 1);
    if (!dataset.starts_with('/')) dataset.insert(dataset.begin(), '/');
    return std::pair(specification.substr(0, at + ending.size()), std::move(dataset));
  }
  return std::nullopt;
}

std::vector<std::string> hdf5_datasets(const std::string& file) {
  hdf5();
  const std::lock_guard lock(one_at_a_time());
  const std::unique_ptr<Handle> opened = open_file(file);
  return names_at_root(*opened, "data file '" + file + "'");
}

SampleValues read_hdf5(const std::string& file, const std::string& dataset, int64_t memory) {
  hdf5();
  std::shared_ptr<const Hdf5Rows> rows;
  {
    const std::lock_guard lock(one_at_a_time());
    rows = std::make_shared<const Hdf5Rows>(file, dataset,
                                            fmt::format("data file '{}', dataset '{}'", file, printable(dataset)));
  }
  const TensorType type = rows->type();
  const bool one_a_sample = !type.shape.empty() && type.element_count() <= type.shape[0];
  if (type.byte_count() > memory && !one_a_sample) return {type, rows};
  Tensor all(type);
  rows->read(0, all.data);
  return all;
}

}  // namespace halfstep
