// Tensors for the API: DLPack's layout, written out once more, and inputs as tensors.
#pragma once

#include <vector>

#include "include/halfstep/halfstep.h"

namespace halfstep::test {

struct Dltensor {
  void* data = nullptr;
  struct {
    int32_t type = HALFSTEP_CPU, index = 0;
  } device;
  int32_t ndim = 0;
  struct {
    uint8_t code = 2, bits = 32;
    uint16_t lanes = 1;
  } dtype;
  int64_t* shape = nullptr;
  int64_t* strides = nullptr;
  uint64_t byte_offset = 0;
};

// Of f32.
inline Dltensor dltensor_of(const halfstep_input& input, std::vector<int64_t>& shape, std::vector<int64_t>& strides) {
  Dltensor tensor;
  tensor.data = const_cast<void*>(input.data);
  tensor.ndim = static_cast<int32_t>(shape.size());
  tensor.shape = shape.data(), tensor.strides = strides.data();
  return tensor;
}

inline std::vector<halfstep_tensor> tensors_of(const std::vector<halfstep_input>& inputs) {
  std::vector<halfstep_tensor> tensors;
  for (const halfstep_input& i : inputs)
    tensors.push_back({i.name, i.dtype, i.rank, i.shape, nullptr, const_cast<void*>(i.data), HALFSTEP_CPU, 0});
  return tensors;
}

}  // namespace halfstep::test
