#include "frontend/import/indices.h"

namespace halfstep {

Value positions(Builder& b, const Shape& shape, size_t axis) {
  return b.call("iota", {}, {{"shape", shape}, {"axis", axis_number(axis)}});
}

Value element_numbers(Builder& b, Value place, const Shape& shape, size_t axis) {
  const std::vector<int64_t> strides = row_major_strides(shape);
  const auto scaled = [&](Value v, size_t i) { return b.mul(v, static_cast<double>(strides[i])); };
  const Shape at = b.shape(place);
  Value number = scaled(b.cast(place, DType::i64), axis);
  for (size_t i = 0; i < at.size(); ++i)
    if (i != axis && at[i] > 1) number = b.add(number, scaled(positions(b, at, i), i));
  return number;
}

Value flat(Builder& b, Value x) { return b.reshape(x, {b.type(x).element_count()}); }

Value gather(Builder& b, Value x, Value indices, size_t axis) {
  return b.call("gather", {x, indices}, {{"axis", axis_number(axis)}});
}

}  // namespace halfstep
