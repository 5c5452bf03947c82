#include "base/tensor.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "base/parallel.h"

namespace halfstep {
namespace {

void narrow(DType dtype, std::span<const float> from, uint16_t* to) {
  for (float value : from) *to++ = dtype == DType::f16 ? half_from_float(value) : bfloat16_from_float(value);
}

// Of `to`, axis i has stride step[i] in `from`. Goes by squares of the axis that is dense in `from` and the one that is
// dense in `to`, so that a cache line is read and written whole while it is there.
template <typename T>
void permute(const Tensor& from, Tensor& to, const std::vector<int64_t>& step) {
  constexpr int64_t kSide = 32;
  const Shape& shape = to.type.shape;
  if (shape.empty() || to.type.element_count() == 0) {
    to.data = from.data;
    return;
  }
  const std::vector<int64_t> stride = row_major_strides(shape);
  const size_t last = shape.size() - 1;
  size_t dense = last;
  for (size_t axis = 0; axis < last; ++axis)
    if (step[axis] == 1 && shape[axis] > 1) dense = axis;
  const int64_t rows = dense == last ? 1 : shape[dense], columns = shape[last];
  const int64_t row_stride = dense == last ? 0 : stride[dense];
  const T* source = from.as<T>().data();
  T* target = to.as<T>().data();
  const int64_t squares = to.type.element_count() / (rows * columns);
  std::vector<int64_t> index(shape.size(), 0);
  for (int64_t n = 0, at = 0, out = 0; n < squares; ++n) {
    for (int64_t r0 = 0; r0 < rows; r0 += kSide)
      for (int64_t c0 = 0; c0 < columns; c0 += kSide)
        for (int64_t r = r0; r < std::min(rows, r0 + kSide); ++r)
          for (int64_t c = c0; c < std::min(columns, c0 + kSide); ++c)
            target[out + r * row_stride + c] = source[at + r + c * step[last]];
    for (size_t axis = last; axis-- > 0;) {
      if (axis == dense) continue;
      at += step[axis], out += stride[axis];
      if (++index[axis] < shape[axis]) break;
      at -= step[axis] * shape[axis], out -= stride[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

}  // namespace

int64_t TensorType::element_count() const {
  if (!fits(shape)) checked_element_count(shape, to_string(*this));
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

NamedTensors named(FileTensors tensors) {
  NamedTensors result;
  for (auto& [name, tensor] : tensors) result.emplace(name, std::move(tensor));
  return result;
}

}  // namespace halfstep
