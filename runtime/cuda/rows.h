// The one kernel of the runtime's own: copies a matrix into another of other width, length or element type, with a bias
// row, the old destination and a relu on the way. It pads channels for cuDNN and finishes results that a library could
// not write in their final form.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/dtype.h"
#include "runtime/cuda/module.h"

namespace halfstep {

enum class Activation : uint8_t { none, relu };
enum class Destination : uint8_t { overwrite, accumulate };

// Floating types only. Arithmetic in f32, in f64 if one of them is f64; rounds once.
struct RowsFormat {
  DType from = DType::f32, to = DType::f32;
  std::optional<DType> bias;
  Activation activation = Activation::none;
  Destination destination = Destination::overwrite;
  friend auto operator<=>(const RowsFormat&, const RowsFormat&) = default;
};

// to[r][c] = activation(from[r][c] + bias[c] + old to[r][c]), r < to_rows, c < to_columns; from is 0 outside of
// [from_rows, from_columns]. Dense row-major. In place where shapes and types are equal.
struct RowsCall {
  const void* from = nullptr;
  void* to = nullptr;
  const void* bias = nullptr;
  int64_t from_rows = 0, from_columns = 0;
  int64_t to_rows = 0, to_columns = 0;
};

// PTX of `.entry rows` for one format.
std::string rows_ptx(const RowsFormat& format);

class RowsKernels {
 public:
  explicit RowsKernels(const CudaDevice& device) : multiprocessors_(device.multiprocessors) {}
  // Compiles the format at its first use, which must not be inside a capture.
  void run(const RowsFormat& format, const RowsCall& call, const CudaStream& stream);

 private:
  struct Kernel {
    std::unique_ptr<CudaModule> module;
    CUfunction function = nullptr;
  };
  int multiprocessors_;
  std::map<RowsFormat, Kernel> kernels_;
};

}  // namespace halfstep
