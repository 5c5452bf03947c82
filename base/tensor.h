// Tensor types and host tensors: dense, row-major.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/name.h"

namespace halfstep {

using Shape = std::vector<int64_t>;

struct TensorType {
  DType dtype = DType::f32;
  Shape shape;  // empty: a scalar

  // 1 for a scalar. Error if they do not fit 64 bits.
  int64_t element_count() const;
  int64_t byte_count() const { return element_count() * size_of(dtype); }  // fits where the count does
  friend bool operator==(const TensorType&, const TensorType&) = default;
};

// "f16[128,32]", "f32[]".
std::string to_string(const TensorType& type);
std::string to_string(const Shape& shape);  // "[128,32]"

// Row-major strides in elements: [a,b,c] -> [b*c, c, 1].
std::vector<int64_t> row_major_strides(const Shape& shape);

// A value on the host. `data` always holds exactly type.byte_count() bytes.
struct Tensor {
  TensorType type;
  std::vector<std::byte> data;

  Tensor() : data(4) {}
  explicit Tensor(TensorType t) : type(std::move(t)), data(static_cast<size_t>(type.byte_count())) {}  // zeros
  static Tensor scalar(DType dtype, double value);
  // One value per element, rounded to dtype.
  static Tensor from_values(TensorType type, std::span<const double> values);

  double at(int64_t index) const;  // linear, row-major
  void set(int64_t index, double value);
  std::vector<double> values() const;
  Tensor cast(DType dtype) const;
  // Result axis i is axis permutation[i] of this tensor.
  Tensor transpose(std::span<const int64_t> permutation) const;

  template <typename T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data.data()), data.size() / sizeof(T)};
  }
  template <typename T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(data.data()), data.size() / sizeof(T)};
  }
  friend bool operator==(const Tensor&, const Tensor&) = default;
};

using NamedTensors = std::map<Name, Tensor>;
// By the names they have in a file.
using FileTensors = std::map<std::string, Tensor>;
// As tensors of a model.
NamedTensors named(FileTensors tensors);

}  // namespace halfstep
