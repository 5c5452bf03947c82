#include "data/idx.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>

#include "base/error.h"

namespace halfstep {
namespace {

std::optional<DType> dtype_of_code(uint8_t code) {
  switch (code) {
    case 0x08:
      return DType::u8;
    case 0x09:
      return DType::i8;
    case 0x0c:
      return DType::i32;
    case 0x0d:
      return DType::f32;
    case 0x0e:
      return DType::f64;
    default:
      return std::nullopt;
  }
}

void reverse_bytes_of_elements(Tensor& tensor) {
  const int64_t size = size_of(tensor.type.dtype);
  for (auto element = tensor.data.begin(); element != tensor.data.end(); element += size)
    std::reverse(element, element + size);
}

}  // namespace

Tensor read_idx(ByteSource& source) { return read_idx_samples(source, kAllInMemory).tensor(); }

SampleValues read_idx_samples(ByteSource& source, int64_t memory) {
  std::array<uint8_t, 4> magic{};
  read_exactly(source, std::as_writable_bytes(std::span(magic)), "header");
  if (magic[0] != 0 || magic[1] != 0)
    throw Error(source.name() + ": not an IDX file: it must start with two zero bytes");
  const std::optional<DType> dtype = dtype_of_code(magic[2]);
  if (!dtype)
    throw Error(source.name() + ": IDX element type " + std::to_string(magic[2]) +
                " is not supported: expected 8 (u8), 9 (i8), 12 (i32), 13 (f32) or 14 (f64)");
  TensorType type{*dtype, {}};
  for (uint8_t axis = 0; axis < magic[3]; ++axis) {
    std::array<uint8_t, 4> b{};
    read_exactly(source, std::as_writable_bytes(std::span(b)), "header");
    type.shape.push_back(int64_t{b[0]} << 24 | int64_t{b[1]} << 16 | int64_t{b[2]} << 8 | int64_t{b[3]});
  }
  if (size_of(*dtype) == 1) return read_samples(source, std::move(type), memory);
  Tensor tensor = read_elements(source, std::move(type));
  if (std::endian::native == std::endian::little) reverse_bytes_of_elements(tensor);
  return tensor;
}

}  // namespace halfstep
