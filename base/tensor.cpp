#include "base/tensor.h"

#include <cstring>

#include "base/error.h"

namespace halfstep {

int64_t TensorType::element_count() const {
  int64_t count = 1;
  for (int64_t d : shape) count *= d;
  return count;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? "," : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string to_string(const TensorType& type) { return std::string(name(type.dtype)) + to_string(type.shape); }

std::vector<int64_t> row_major_strides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

Tensor Tensor::scalar(DType dtype, double value) {
  Tensor t(TensorType{dtype, {}});
  t.set(0, value);
  return t;
}

Tensor Tensor::from_values(TensorType type, std::span<const double> values) {
  Tensor t(std::move(type));
  require(static_cast<int64_t>(values.size()) == t.type.element_count(), "one value per element");
  for (size_t i = 0; i < values.size(); ++i) t.set(static_cast<int64_t>(i), values[i]);
  return t;
}

double Tensor::at(int64_t index) const { return load_as_double(type.dtype, data.data() + index * size_of(type.dtype)); }

void Tensor::set(int64_t index, double value) {
  store_from_double(type.dtype, data.data() + index * size_of(type.dtype), value);
}

std::vector<double> Tensor::values() const {
  std::vector<double> v(static_cast<size_t>(type.element_count()));
  for (size_t i = 0; i < v.size(); ++i) v[i] = at(static_cast<int64_t>(i));
  return v;
}

Tensor Tensor::cast(DType dtype) const {
  Tensor result(TensorType{dtype, type.shape});
  for (int64_t i = 0; i < type.element_count(); ++i) result.set(i, at(i));
  return result;
}

Tensor Tensor::transpose(std::span<const int64_t> permutation) const {
  require(permutation.size() == type.shape.size(), "permutation has the tensor's rank");
  Tensor result(TensorType{type.dtype, Shape(permutation.size())});
  const std::vector<int64_t> strides = row_major_strides(type.shape);
  std::vector<int64_t> step(permutation.size());
  for (size_t i = 0; i < permutation.size(); ++i) {
    result.type.shape[i] = type.shape[static_cast<size_t>(permutation[i])];
    step[i] = strides[static_cast<size_t>(permutation[i])];
  }
  const size_t size = static_cast<size_t>(size_of(type.dtype));
  std::vector<int64_t> index(permutation.size(), 0);
  int64_t from = 0;
  result.data.resize(data.size());
  for (int64_t to = 0; to < type.element_count(); ++to) {
    std::memcpy(result.data.data() + static_cast<size_t>(to) * size, data.data() + static_cast<size_t>(from) * size,
                size);
    for (size_t axis = index.size(); axis-- > 0;) {
      from += step[axis];
      if (++index[axis] < result.type.shape[axis]) break;
      from -= step[axis] * index[axis];
      index[axis] = 0;
    }
  }
  return result;
}

}  // namespace halfstep
