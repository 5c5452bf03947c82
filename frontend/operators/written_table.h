// Tensors that an import function writes itself.
#pragma once

#include <algorithm>

#include "base/checked.h"
#include "base/tensor.h"

namespace halfstep {

// Zeros. What the file's sizes would make larger than this is an Error, before memory is taken for it.
inline Tensor table_of(TensorType type) {
  constexpr int64_t kMost = int64_t{1} << 22;
  if (checked_element_count(type.shape, to_string(type)) > kMost)
    throw Error("a table of " + std::to_string(type.element_count()) + " elements is too large");
  return Tensor(std::move(type));
}

inline Tensor integers(const Ints& values, Shape shape) {
  Tensor tensor(TensorType{DType::i64, std::move(shape)});
  std::copy(values.begin(), values.end(), tensor.as<int64_t>().begin());
  return tensor;
}

}  // namespace halfstep
