// NumPy's .npy format, versions 1 to 3, and .npz: a zip archive of them.
#pragma once

#include <filesystem>
#include <map>
#include <string_view>

#include "data/sample_values.h"

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

// The same; beyond `memory` bytes samples stay where they are (see read_samples), unless they are in Fortran order.
SampleValues read_npy_samples(ByteSource& source, int64_t memory);

// The type of what follows the header as samples, one after the other. Error for Fortran order, where they are none.
TensorType read_npy_type(ByteSource& source);

// Members stored or deflated, zip64 included; names lose their ".npy". Throws Error naming the member.
FileTensors read_npz(const std::filesystem::path& path);
std::map<std::string, SampleValues> read_npz_samples(const std::filesystem::path& path, int64_t memory);

}  // namespace halfstep
