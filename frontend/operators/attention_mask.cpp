#include "frontend/operators/attention_mask.h"

#include <limits>

namespace halfstep {

Value split_heads(NodeContext& c, Value x, int64_t heads) {
  const Shape shape = c.b.shape(x);
  if (shape.size() != 3 || heads <= 0 || shape[2] % heads != 0)
    c.fail("[batch, length, heads * depth] with " + std::to_string(heads) + " heads expected, found " +
           to_string(shape));
  return permute(c.b, c.b.reshape(x, {shape[0], shape[1], heads, shape[2] / heads}), {0, 2, 1, 3});
}

Value merge_heads(Builder& b, Value x) {
  const Shape shape = b.shape(x);
  return b.reshape(permute(b, x, {0, 2, 1, 3}), {shape[0], shape[2], shape[1] * shape[3]});
}

void AttentionMask::see_where(Value visible) { visible_ = visible_ ? b_.binary("and", visible_, visible) : visible; }

void AttentionMask::add(Value bias) { bias_ = bias_ ? b_.add(bias_, bias) : bias; }

Value AttentionMask::position(int64_t axis) const {
  return b_.call("iota", {}, {{"shape", Shape{queries_, keys_}}, {"axis", axis}});
}

void AttentionMask::see_window(Value offset, std::optional<int64_t> low, std::optional<int64_t> high) {
  const Value start = b_.add(position(0), offset), key = position(1);
  const auto moved = [&](int64_t by) {
    return by == 0 ? start : b_.add(start, b_.constant(DType::i64, static_cast<double>(by)));
  };
  if (low) see_where(b_.binary("less_equal", moved(*low), key));
  if (high) see_where(b_.binary("less_equal", key, moved(*high)));
}

Value AttentionMask::among_first(Value lengths) const {
  const Value key = b_.call("iota", {}, {{"shape", Shape{keys_}}, {"axis", int64_t{0}}});
  return b_.binary("less", key, b_.reshape(lengths, {b_.type(lengths).element_count(), 1, 1, 1}));
}

Value AttentionMask::value() const {
  if (!bias_ || !visible_) return bias_ ? bias_ : visible_;
  const DType type = b_.dtype(bias_);
  const Value zero = b_.constant(type, 0), hidden = b_.constant(type, -std::numeric_limits<double>::infinity());
  return b_.add(bias_, b_.select(visible_, zero, hidden));
}

Value rotate(Builder& b, Value x, const Rotation& rotation) {
  const Shape shape = b.shape(x);
  const int64_t half = rotation.dimensions / 2;
  const bool interleaved = rotation.pairs == Rotation::interleaved;
  const auto part = [&](int64_t from, int64_t to, int64_t step) {
    Shape limits = shape;
    limits[3] = to;
    return b.slice(x, {0, 0, 0, from}, limits, {1, 1, 1, step});
  };
  const Value first = interleaved ? part(0, rotation.dimensions, 2) : part(0, half, 1),
              second = interleaved ? part(1, rotation.dimensions, 2) : part(half, rotation.dimensions, 1);
  const Value real = b.sub(b.mul(rotation.cos, first), b.mul(rotation.sin, second)),
              imaginary = b.add(b.mul(rotation.sin, first), b.mul(rotation.cos, second));
  Shape turned = shape;
  turned[3] = rotation.dimensions;
  Value result;
  if (interleaved) {
    const Shape single{shape[0], shape[1], shape[2], half, 1};
    const Value pairs =
        b.call("concat", {b.reshape(real, single), b.reshape(imaginary, single)}, {{"axis", int64_t{4}}});
    result = b.reshape(pairs, turned);
  } else {
    result = b.call("concat", {real, imaginary}, {{"axis", int64_t{3}}});
  }
  if (rotation.dimensions == shape[3]) return result;
  return b.call("concat", {result, part(rotation.dimensions, shape[3], 1)}, {{"axis", int64_t{3}}});
}

Value rotation_rows(Builder& b, Value table, Value positions) {
  const Value rows = b.call("gather", {table, positions}, {{"axis", int64_t{0}}});
  const Shape shape = b.shape(rows);
  if (shape.size() != 3)
    throw Error("positions [batch, length] of a table [positions, angles] expected, found " +
                to_string(b.type(positions)) + " and " + to_string(b.type(table)));
  return b.reshape(rows, {shape[0], 1, shape[1], shape[2]});
}

}  // namespace halfstep
