// NumPy's .npy format, versions 1 to 3, and .npz: a zip archive of them.
#pragma once

#include <filesystem>
#include <string_view>

#include "data/byte_source.h"

namespace halfstep {

inline constexpr std::string_view kNpyMagic = "\x93NUMPY";

struct NpyHeader {
  std::string descr;  // NumPy's name of the element type: "<f4"
  bool fortran_order = false;
  Shape shape;
};
// The elements follow. Throws Error.
NpyHeader read_npy_header(ByteSource& source);

// "<f4"
std::string_view npy_descr(DType dtype);

// Little-endian arrays of the types of base/dtype.h; Fortran order is transposed to row-major. Throws Error.
Tensor read_npy(ByteSource& source);

// Members stored or deflated, zip64 included; names lose their ".npy". Throws Error naming the member.
FileTensors read_npz(const std::filesystem::path& path);

}  // namespace halfstep
