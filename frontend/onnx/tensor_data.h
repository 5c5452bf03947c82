// ONNX tensors as host tensors. Sizes are checked before anything is allocated; external data is read only from inside
// the model's directory.
#pragma once

#include <onnx/onnx_pb.h>

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "base/tensor.h"

namespace halfstep {

// The element type an ONNX type has here: every floating type is f32 (precision is assigned by the compiler), 16-bit
// and unsigned integers the next wider one. Nothing for strings, complex numbers and types unknown to this version.
std::optional<DType> element_type(int32_t onnx_type);
// "float16", "string", "type 23".
std::string element_type_name(int32_t onnx_type);

// Throws Error naming the tensor if its type is not supported or its size overflows.
TensorType type_of(const onnx::TensorProto& tensor);

class TensorReader {
 public:
  explicit TensorReader(std::filesystem::path directory) : directory_(std::move(directory)) {}

  // Throws Error naming the tensor: data missing, of another size, or outside the directory.
  Tensor read(const onnx::TensorProto& tensor) const;
  // The element bytes as the file has them, little-endian in the ONNX type.
  std::string read_bytes(const onnx::TensorProto& tensor) const;
  // The file of external data if it is not there. Throws Error for a location outside the directory.
  std::optional<std::string> missing_file(const onnx::TensorProto& tensor) const;

 private:
  std::filesystem::path external_path(const onnx::TensorProto& tensor) const;
  struct Place {
    std::filesystem::path path;
    int64_t offset;
  };
  Place find_external(const onnx::TensorProto& tensor, int64_t expected) const;
  // Throws unless all of the tensor's data is there: nothing is allocated for what a file only promises.
  int64_t held_bytes(const onnx::TensorProto& tensor) const;
  // After held_bytes.
  void fill(const onnx::TensorProto& tensor, std::span<char> first) const;

  std::filesystem::path directory_;
};

}  // namespace halfstep
