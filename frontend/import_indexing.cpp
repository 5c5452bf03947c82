// Operators that choose elements by index.
#include <algorithm>

#include "frontend/operators.h"

namespace halfstep {
namespace {

// Elements first, first + 1, ... of `axis` as a slice.
Value slice_axis(Builder& b, Value x, size_t axis, int64_t first, int64_t count) {
  Ints starts(b.shape(x).size(), 0), limits = b.shape(x);
  starts[axis] = first, limits[axis] = first + count;
  return b.slice(x, starts, limits);
}

// The indices of a strided view: all elements of an axis in order, in the shape of the indices. It follows that axis.
std::optional<Dimensions> whole_axis(NodeContext& c, size_t axis, const Tensor& indices) {
  const Dimensions from = c.dimensions(0);
  if (indices.type.element_count() != exported_sizes(from)[axis]) return std::nullopt;
  for (int64_t i = 0; i < indices.type.element_count(); ++i)
    if (indices.at(i) != static_cast<double>(i)) return std::nullopt;
  std::optional<Dimensions> to = read_target({from[axis]}, indices.type.shape);
  const auto at = static_cast<std::ptrdiff_t>(axis);
  if (to) to->insert(to->begin(), from.begin(), from.begin() + at);
  if (to) to->insert(to->end(), from.begin() + at + 1, from.end());
  return to;
}

// Constant indices, which may be a slice: that has a gradient and needs no table.
Value gather_constant(NodeContext& c, size_t axis, Tensor indices) {
  Builder& b = c.b;
  const Value x = c.operand(0);
  const Shape shape = b.shape(x);
  const int64_t size = shape[axis], count = indices.type.element_count();
  const std::span<int64_t> values = indices.as<int64_t>();
  const bool baked = indices.type.shape.size() > 1 || c.sizes(1, "indices").is_baked();
  if (exported_sizes(c.dimensions(0))[axis] != size && baked)
    if (const std::optional<Dimensions> whole = whole_axis(c, axis, indices)) {
      c.set_dimensions(0, *whole);
      return b.reshape(x, wanted_sizes(*whole));
    }
  bool consecutive = count > 0;
  for (int64_t& v : values) {
    if (baked) c.check_position(v, 0, axis);
    if (v < -size || v >= size)
      c.fail("index " + std::to_string(v) + " is outside axis " + std::to_string(axis) + " of " + to_string(shape));
    if (v < 0) v += size;
    consecutive &= v == values[0] + (&v - values.data());
  }
  if (!consecutive) return b.call("gather", {x, b.constant(indices)}, {{"axis", static_cast<int64_t>(axis)}});
  Shape result(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(axis));
  result.insert(result.end(), indices.type.shape.begin(), indices.type.shape.end());
  result.insert(result.end(), shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end());
  return b.reshape(slice_axis(b, x, axis, values[0], count), result);
}

std::vector<Value> import_gather(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  const size_t axis = c.axis(c.integer("axis", 0), shape.size());
  const Value indices = c.operand(1);
  if (is_floating(b.dtype(indices))) c.fail("integer indices expected, found " + to_string(b.type(indices)));
  // An embedding table: rows of unit variance, as PyTorch's.
  c.initialise(c.operand(0), {FreshRule::normal, 1});
  if (c.is_constant(1)) return {gather_constant(c, axis, c.constant(1, "indices").cast(DType::i64))};
  const Value size = b.constant_like(indices, static_cast<double>(shape[axis]));
  const Value negative = b.binary("less", indices, b.constant_like(indices, 0));
  return {b.call("gather", {c.operand(0), b.select(negative, b.add(indices, size), indices)},
                 {{"axis", static_cast<int64_t>(axis)}})};
}

std::vector<Value> import_arg_max(NodeContext& c) {
  const Shape shape = c.shape(0);
  const size_t axis = c.axis(c.integer("axis", 0), shape.size());
  if (c.integer("select_last_index", 0) != 0) c.fail("select_last_index=1 is not supported");
  const Value index = c.b.call("argmax", {c.operand(0)}, {{"axis", static_cast<int64_t>(axis)}});
  if (c.integer("keepdims", 1) != 0) return {index};
  Shape result = shape;
  result.erase(result.begin() + static_cast<std::ptrdiff_t>(axis));
  return {c.b.reshape(index, result)};
}

const std::vector<OnnxOperator> kRows{
    {"ArgMax", {1}, 1, 1, import_arg_max, "no select_last_index"},
    {"Gather", {1}, 2, 2, import_gather},
};

}  // namespace

std::span<const OnnxOperator> indexing_operators() { return kRows; }

}  // namespace halfstep
