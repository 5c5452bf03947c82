#include "frontend/onnx/tensor_data.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <span>

#include "base/checked.h"
#include "base/error.h"
#include "frontend/onnx/narrow_types.h"

namespace halfstep {
namespace {

using onnx::TensorProto;

struct ElementTypeRow {
  int32_t onnx;
  const char* name;
  int64_t size;
  std::optional<DType> type;
};

constexpr ElementTypeRow kElementTypes[] = {{TensorProto::FLOAT, "float32", 4, DType::f32},
                                            {TensorProto::FLOAT16, "float16", 2, DType::f32},
                                            {TensorProto::BFLOAT16, "bfloat16", 2, DType::f32},
                                            {TensorProto::DOUBLE, "float64", 8, DType::f32},
                                            {TensorProto::INT64, "int64", 8, DType::i64},
                                            {TensorProto::INT32, "int32", 4, DType::i32},
                                            {TensorProto::INT16, "int16", 2, DType::i32},
                                            {TensorProto::INT8, "int8", 1, DType::i8},
                                            {TensorProto::UINT64, "uint64", 8, DType::i64},
                                            {TensorProto::UINT32, "uint32", 4, DType::i64},
                                            {TensorProto::UINT16, "uint16", 2, DType::i32},
                                            {TensorProto::UINT8, "uint8", 1, DType::u8},
                                            {TensorProto::BOOL, "bool", 1, DType::boolean},
                                            {TensorProto::STRING, "string", 0, std::nullopt},
                                            {TensorProto::COMPLEX64, "complex64", 0, std::nullopt},
                                            {TensorProto::COMPLEX128, "complex128", 0, std::nullopt},
                                            {24, "float8e8m0", 0, std::nullopt},
                                            {27, "float6e2m3", 0, std::nullopt},
                                            {28, "float6e3m2", 0, std::nullopt},
                                            {TensorProto::UNDEFINED, "undefined", 0, std::nullopt}};

const ElementTypeRow* find_row(int32_t onnx_type) {
  for (const ElementTypeRow& row : kElementTypes)
    if (row.onnx == onnx_type) return &row;
  return nullptr;
}

std::string place(const TensorProto& tensor) { return "tensor '" + tensor.name() + "'"; }

template <typename T>
double load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return static_cast<double>(value);
}

// Element `at` of type `onnx_type` as a number.
double element(int32_t onnx_type, const char* at) {
  switch (onnx_type) {
    case TensorProto::FLOAT16:
      return load_as_double(DType::f16, at);
    case TensorProto::BFLOAT16:
      return load_as_double(DType::bf16, at);
    case TensorProto::DOUBLE:
      return load<double>(at);
    case TensorProto::INT16:
      return load<int16_t>(at);
    case TensorProto::UINT16:
      return load<uint16_t>(at);
    case TensorProto::UINT32:
      return load<uint32_t>(at);
    case TensorProto::UINT64:
      return load<uint64_t>(at);
    default:
      return load_as_double(find_row(onnx_type)->type.value(), at);
  }
}

// The typed field of `tensor` as little-endian elements of the ONNX type.
template <typename T, typename Field>
std::string bytes_of(const Field& field) {
  std::string bytes(static_cast<size_t>(field.size()) * sizeof(T), '\0');
  for (int i = 0; i < field.size(); ++i) {
    const T value = static_cast<T>(field.Get(i));
    std::memcpy(bytes.data() + static_cast<size_t>(i) * sizeof(T), &value, sizeof value);
  }
  return bytes;
}

// Elements of uint64 as they stand in memory.
void refuse_beyond_int64(const TensorProto& tensor, std::span<const int64_t> elements) {
  const auto found = std::ranges::find_if(elements, [](int64_t v) { return v < 0; });
  if (found != elements.end())
    throw Error(place(tensor) + ": element " + std::to_string(found - elements.begin()) + " is " +
                std::to_string(static_cast<uint64_t>(*found)) + ": integers of 2^63 and more are not supported");
}

std::string typed_bytes(const TensorProto& t) {
  switch (t.data_type()) {
    case TensorProto::FLOAT:
      return bytes_of<float>(t.float_data());
    case TensorProto::DOUBLE:
      return bytes_of<double>(t.double_data());
    case TensorProto::INT64:
      return bytes_of<int64_t>(t.int64_data());
    case TensorProto::UINT64:
      return bytes_of<uint64_t>(t.uint64_data());
    case TensorProto::UINT32:
      return bytes_of<uint32_t>(t.uint64_data());
    case TensorProto::INT32:
      return bytes_of<int32_t>(t.int32_data());
    case TensorProto::INT16:
    case TensorProto::UINT16:
    case TensorProto::FLOAT16:
    case TensorProto::BFLOAT16:
      return bytes_of<uint16_t>(t.int32_data());
    default:
      return bytes_of<uint8_t>(t.int32_data());
  }
}

int64_t number_entry(const TensorProto& tensor, const char* key, int64_t absent) {
  for (const auto& entry : tensor.external_data()) {
    if (entry.key() != key) continue;
    int64_t value = -1;
    const char* end = entry.value().data() + entry.value().size();
    const auto [stop, error] = std::from_chars(entry.value().data(), end, value);
    if (error != std::errc() || stop != end || value < 0)
      throw Error(place(tensor) + ": external data " + key + " '" + entry.value() + "' is not a size");
    return value;
  }
  return absent;
}

// Of the whole tensor, wherever it lies. Throws if its type is unknown.
int64_t stored_bytes(const TensorProto& tensor) {
  const int64_t count = type_of(tensor).element_count();
  const NarrowType* narrow = find_narrow_type(tensor.data_type());
  return ceil_div(count * (narrow ? narrow->bits : find_row(tensor.data_type())->size * 8), 8);
}

}  // namespace

std::optional<DType> element_type(int32_t onnx_type) {
  const ElementTypeRow* row = find_row(onnx_type);
  return row ? row->type : std::nullopt;
}

std::string element_type_name(int32_t onnx_type) {
  if (const NarrowType* narrow = find_narrow_type(onnx_type)) return narrow->name;
  const ElementTypeRow* row = find_row(onnx_type);
  return row ? row->name : "type " + std::to_string(onnx_type);
}

TensorType type_of(const TensorProto& tensor) {
  const NarrowType* narrow = find_narrow_type(tensor.data_type());
  const std::optional<DType> dtype = narrow ? narrow->held : element_type(tensor.data_type());
  if (!dtype)
    throw Error(place(tensor) + ": element type " + element_type_name(tensor.data_type()) + " is not supported");
  TensorType type{*dtype, Shape(tensor.dims().begin(), tensor.dims().end())};
  constexpr int64_t kMostElements = int64_t{1} << 34;  // 64 GiB of float32
  if (checked_element_count(type.shape, place(tensor)) > kMostElements)
    throw Error(place(tensor) + ": " + to_string(type) + " is larger than a tensor can be here");
  return type;
}

std::optional<std::string> TensorReader::missing_file(const TensorProto& tensor) const {
  if (tensor.data_location() != TensorProto::EXTERNAL) return std::nullopt;
  const std::filesystem::path path = external_path(tensor);
  std::error_code unreadable;
  if (std::filesystem::exists(path, unreadable)) return std::nullopt;
  return path.filename().string();
}

std::filesystem::path TensorReader::external_path(const TensorProto& tensor) const {
  std::string location;
  for (const auto& entry : tensor.external_data())
    if (entry.key() == "location") location = entry.value();
  const std::filesystem::path relative(location);
  if (location.empty()) throw Error(place(tensor) + ": its external data names no location");
  const bool leaves = std::find(relative.begin(), relative.end(), "..") != relative.end();
  const std::string outside = place(tensor) + ": external data '" + location +
                              "' lies outside the model's directory; move the file beside the model";
  if (relative.is_absolute() || leaves) throw Error(outside);
  // Symbolic links are resolved before the comparison.
  std::error_code error;
  const std::filesystem::path base = std::filesystem::weakly_canonical(directory_, error);
  const std::filesystem::path path = std::filesystem::weakly_canonical(base / relative, error);
  const auto [end, ignored] = std::mismatch(base.begin(), base.end(), path.begin(), path.end());
  if (error || end != base.end()) throw Error(outside);
  return path;
}

TensorReader::Place TensorReader::find_external(const TensorProto& tensor, int64_t expected) const {
  const std::filesystem::path path = external_path(tensor);
  const int64_t offset = number_entry(tensor, "offset", 0), length = number_entry(tensor, "length", expected);
  if (length != expected)
    throw Error(place(tensor) + ": external data of " + std::to_string(length) + " bytes, " + std::to_string(expected) +
                " expected");
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    throw Error(place(tensor) + ": its external data '" + path.filename().string() +
                "' is missing; put the file beside the model");
  // A link to a file elsewhere, as an archive can hold, has no path that shows it.
  if (std::filesystem::hard_link_count(path, error) > 1)
    throw Error(place(tensor) + ": its external data '" + path.filename().string() +
                "' is a hard link to a file that has other names too; put a copy beside the model");
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path, error));
  if (error || checked_add(offset, length, place(tensor)) > size)
    throw Error(place(tensor) + ": external data ends at byte " + std::to_string(offset + length) + ", but '" +
                path.filename().string() + "' has " + std::to_string(size));
  return {path, offset};
}

int64_t TensorReader::held_bytes(const TensorProto& tensor) const {
  const int64_t expected = stored_bytes(tensor);
  if (tensor.data_location() == TensorProto::EXTERNAL) {
    find_external(tensor, expected);
    return expected;
  }
  const size_t bytes = tensor.has_raw_data() ? tensor.raw_data().size() : typed_bytes(tensor).size();
  if (static_cast<int64_t>(bytes) != expected)
    throw Error(place(tensor) + ": " + std::to_string(bytes) + " bytes of data, " + std::to_string(expected) +
                " expected for " + element_type_name(tensor.data_type()) +
                to_string(Shape(tensor.dims().begin(), tensor.dims().end())));
  return expected;
}

void TensorReader::fill(const TensorProto& tensor, std::span<char> first) const {
  if (tensor.data_location() != TensorProto::EXTERNAL) {
    const std::string typed = tensor.has_raw_data() ? std::string() : typed_bytes(tensor);
    if (!first.empty())
      std::memcpy(first.data(), (tensor.has_raw_data() ? tensor.raw_data() : typed).data(), first.size());
    return;
  }
  const Place at = find_external(tensor, stored_bytes(tensor));
  std::ifstream stream(at.path, std::ios::binary);
  stream.seekg(at.offset);
  if (!stream.read(first.data(), static_cast<std::streamsize>(first.size())))
    throw Error("cannot read '" + at.path.string() + "'");
}

std::string TensorReader::read_bytes(const TensorProto& tensor) const {
  std::string bytes(static_cast<size_t>(held_bytes(tensor)), '\0');
  fill(tensor, bytes);
  return bytes;
}

Tensor TensorReader::read(const TensorProto& tensor) const {
  const TensorType type = type_of(tensor);
  const NarrowType* narrow = find_narrow_type(tensor.data_type());
  const ElementTypeRow* row = narrow ? nullptr : find_row(tensor.data_type());
  if (row && row->size == size_of(type.dtype)) {
    held_bytes(tensor);
    Tensor result(type);
    fill(tensor, result.as<char>());
    if (row->onnx == TensorProto::UINT64) refuse_beyond_int64(tensor, result.as<int64_t>());
    return result;
  }
  const std::string bytes = read_bytes(tensor);
  Tensor result(type);
  for (int64_t i = 0; i < type.element_count(); ++i)
    result.set(i, narrow ? narrow_element(*narrow, bytes, i) : element(row->onnx, bytes.data() + i * row->size));
  return result;
}

}  // namespace halfstep
