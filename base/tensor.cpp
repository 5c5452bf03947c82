#include "base/tensor.h"

#include "base/error.h"
#include "base/parallel.h"

namespace halfstep {
namespace {

void narrow(DType dtype, std::span<const float> from, uint16_t* to) {
  for (float value : from) *to++ = dtype == DType::f16 ? half_from_float(value) : bfloat16_from_float(value);
}

// Element by element of `to`, whose axis i has stride step[i] in `from`.
template <typename T>
void permute(const Tensor& from, Tensor& to, const std::vector<int64_t>& step) {
  const Shape& shape = to.type.shape;
  const T* source = from.as<T>().data();
  std::vector<int64_t> index(shape.size(), 0);
  int64_t at = 0;
  for (T& element : to.as<T>()) {
    element = source[at];
    for (size_t axis = index.size(); axis-- > 0;) {
      at += step[axis];
      if (++index[axis] < shape[axis]) break;
      at -= step[axis] * index[axis];
      index[axis] = 0;
    }
  }
}

}  // namespace

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
  const bool narrows = type.dtype == DType::f32 && is_low(dtype);
  parallel_stretches(type.element_count(), [&](int64_t begin, int64_t end) {
    if (narrows)
      return narrow(dtype, as<float>().subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                    result.as<uint16_t>().data() + begin);
    for (int64_t i = begin; i < end; ++i) result.set(i, at(i));
  });
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
  result.data.resize(data.size());
  switch (size_of(type.dtype)) {
    case 1:
      permute<uint8_t>(*this, result, step);
      break;
    case 2:
      permute<uint16_t>(*this, result, step);
      break;
    case 4:
      permute<uint32_t>(*this, result, step);
      break;
    default:
      permute<uint64_t>(*this, result, step);
  }
  return result;
}

}  // namespace halfstep
