// Operators that depend on the order of elements along an axis: scans, extrema and their places, triangles.
#include <algorithm>

#include "base/checked.h"
#include "frontend/import/indices.h"
#include "frontend/import/operators.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

// x[..., n, ...] with a new axis before or behind `axis`, copied along it `count` times.
Value repeated(Builder& b, Value x, size_t new_axis, int64_t count) {
  Shape shape = b.shape(x);
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(new_axis), 1);
  const Value apart = b.reshape(x, shape);
  shape[new_axis] = count;
  return b.broadcast(apart, shape);
}

// ---- places of extrema ----

Value arg_max(Builder& b, Value x, size_t axis) { return b.call("argmax", {x}, {{"axis", axis_number(axis)}}); }

Value reversed(Builder& b, Value x, size_t axis) {
  const int64_t size = b.shape(x)[axis];
  Tensor indices = table_of({DType::i64, {size}});
  for (int64_t i = 0; i < size; ++i) indices.set(i, static_cast<double>(size - 1 - i));
  return gather(b, x, b.constant(indices), axis);
}

std::vector<Value> import_arg_extremum(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  const size_t axis = c.axis(c.integer("axis", 0), shape.size());
  if (shape[axis] == 0) c.fail("axis " + std::to_string(axis) + " of " + to_string(shape) + " has no element");
  Value x = c.operand(0);
  if (!is_floating(b.dtype(x))) x = b.cast(x, DType::i64);
  if (c.op_type() == "ArgMin") x = b.sub(b.constant_like(x, 0), x);
  const bool last = c.version >= 12 && c.integer("select_last_index", 0) != 0;
  Value index = arg_max(b, last ? reversed(b, x, axis) : x, axis);
  if (last) index = b.sub(b.constant_like(index, static_cast<double>(shape[axis] - 1)), index);
  if (c.integer("keepdims", 1) != 0) return {index};
  Shape result = shape;
  result.erase(result.begin() + static_cast<std::ptrdiff_t>(axis));
  return {b.reshape(index, result)};
}

// Before opset 13 the axes from `axis` on are one; since then `axis` is one axis, the last by default.
std::vector<Value> import_hardmax(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  if (shape.empty()) c.fail("a scalar has no axis to look along");
  size_t axis = c.axis(c.integer("axis", c.version >= 13 ? -1 : 1), shape.size());
  Value x = c.operand(0);
  if (c.version < 13) {
    int64_t columns = 1;
    for (size_t i = axis; i < shape.size(); ++i) columns *= shape[i];
    x = b.reshape(x, {columns == 0 ? 0 : b.type(x).element_count() / columns, columns});
    axis = 1;
  }
  const Value hit = b.call("eq", {positions(b, b.shape(x), axis), b.broadcast(arg_max(b, x, axis), b.shape(x))});
  return {b.reshape(b.cast(hit, b.dtype(x)), shape)};
}

// The rank of an element is how many stand before it; the element of rank r is the r-th result. Comparing all pairs
// costs n^2, in no memory.
std::vector<Value> import_top_k(NodeContext& c) {
  Builder& b = c.b;
  constexpr int64_t kLongest = 8192;
  const Shape shape = c.shape(0);
  const size_t axis = c.axis(c.integer("axis", -1), shape.size());
  const int64_t n = shape[axis], k = c.version >= 10 ? c.whole(1, "k") : c.integer("k");
  const bool largest = c.version < 11 || c.integer("largest", 1) != 0;
  if (c.version >= 11) c.ignore({"sorted"});  // in order is one of the orders
  if (k < 0 || k > n) c.fail("k " + std::to_string(k) + " is outside [0, " + std::to_string(n) + "]");
  if (n > kLongest)
    c.fail("an axis of " + std::to_string(n) + " elements is too long; at most " + std::to_string(kLongest));
  // [..., element, other, ...]
  const Value x = c.operand(0), element = repeated(b, x, axis + 1, n), other = repeated(b, x, axis, n);
  const Shape pairs = b.shape(element);
  const Value before = b.binary("less", largest ? element : other, largest ? other : element);
  const Value earlier = b.binary("less", positions(b, pairs, axis + 1), positions(b, pairs, axis));
  const Value tie = b.call("and", {b.binary("eq", element, other), earlier});
  const Value first = b.cast(b.call("or", {before, tie}), DType::i64);
  const Value rank = b.reshape(b.reduce("reduce_sum", first, {axis_number(axis + 1)}), shape);
  // [..., result, element, ...]
  const Value ranks = repeated(b, rank, axis, k);
  const Value chosen = b.binary("eq", ranks, positions(b, b.shape(ranks), axis));
  Shape result = shape;
  result[axis] = k;
  const Value numbers = b.select(chosen, positions(b, b.shape(ranks), axis + 1), b.constant_like(ranks, 0));
  const Value indices = b.reshape(b.reduce("reduce_sum", numbers, {axis_number(axis + 1)}), result);
  const Value values = gather(b, flat(b, x), element_numbers(b, indices, shape, axis));
  return {values, indices};
}

// ---- scans ----

enum class Scan : uint8_t { inclusive, exclusive };
enum class Direction : uint8_t { forward, backward };

// Sums of all pairs within blocks, and the blocks' totals scanned alike: n * kBlock additions, f32 inside.
Value cumulative_sum(Builder& b, Value x, size_t axis, Scan scan, Direction direction) {
  constexpr int64_t kBlock = 64;
  const Shape shape = b.shape(x);
  const int64_t n = shape[axis], blocks = ceil_div(n, kBlock);
  const auto within = [&](Value v, size_t at) {  // [..., result, summand, ...]
    const Value summand = repeated(b, v, at, b.shape(v)[at]);
    const Shape pairs = b.shape(summand);
    const Value result_at = positions(b, pairs, at), summand_at = positions(b, pairs, at + 1);
    const bool ahead = direction == Direction::forward;
    const Value counts = b.binary(scan == Scan::inclusive ? "less_equal" : "less", ahead ? summand_at : result_at,
                                  ahead ? result_at : summand_at);
    const Value kept = b.select(counts, summand, b.constant_like(summand, 0));
    return b.reshape(b.reduce("reduce_sum", kept, {axis_number(at + 1)}), b.shape(v));
  };
  if (n <= kBlock) return within(x, axis);
  Ints high(shape.size(), 0);
  high[axis] = blocks * kBlock - n;
  Shape split = shape;
  split[axis] = blocks;
  split.insert(split.begin() + static_cast<std::ptrdiff_t>(axis) + 1, kBlock);
  const Value padded = high[axis] == 0 ? x : b.call("pad", {x}, {{"low", Ints(shape.size(), 0)}, {"high", high}});
  const Value parts = b.reshape(padded, split);
  const Value totals = b.reduce("reduce_sum", parts, {axis_number(axis + 1)});
  const Value before = cumulative_sum(b, totals, axis, Scan::exclusive, direction);
  const Value sums = b.add(within(parts, axis + 1), b.broadcast(before, split));
  Shape together = shape;
  together[axis] = blocks * kBlock;
  return b.slice(b.reshape(sums, together), Ints(shape.size(), 0), shape);
}

std::vector<Value> import_cum_sum(NodeContext& c) {
  const size_t axis = c.axis(static_cast<int64_t>(c.number(1, "axis")), c.shape(0).size());
  const Scan scan = c.integer("exclusive", 0) != 0 ? Scan::exclusive : Scan::inclusive;
  const Direction direction = c.integer("reverse", 0) != 0 ? Direction::backward : Direction::forward;
  return {cumulative_sum(c.b, c.operand(0), axis, scan, direction)};
}

// x moved by `places` along `axis`, ones coming in.
Value moved(Builder& b, Value x, size_t axis, int64_t places, Direction direction) {
  const bool ahead = direction == Direction::forward;
  Ints starts(b.shape(x).size(), 0), limits = b.shape(x), ones = starts;
  (ahead ? limits[axis] : starts[axis]) += ahead ? -places : places;
  const Ints none = ones;
  ones[axis] = places;
  const Value kept = b.slice(x, starts, limits);
  return b.call("pad", {kept}, {{"low", ahead ? ones : none}, {"high", ahead ? none : ones}, {"value", 1.0}});
}

// In as many steps as the length has digits, each doubling how many factors an element has: no division.
std::vector<Value> import_cum_prod(NodeContext& c) {
  Builder& b = c.b;
  Value x = c.operand(0);
  const size_t axis = c.axis(static_cast<int64_t>(c.number(1, "axis")), c.shape(0).size());
  const Direction direction = c.integer("reverse", 0) != 0 ? Direction::backward : Direction::forward;
  const int64_t n = b.shape(x)[axis];
  if (c.integer("exclusive", 0) != 0 && n > 0) x = moved(b, x, axis, 1, direction);
  for (int64_t factors = 1; factors < n; factors *= 2) x = b.mul(x, moved(b, x, axis, factors, direction));
  return {x};
}

// ---- triangles ----

// Column - row of the last two axes.
Value diagonal(Builder& b, const Shape& shape) {
  return b.sub(positions(b, shape, shape.size() - 1), positions(b, shape, shape.size() - 2));
}

std::vector<Value> import_trilu(NodeContext& c) {
  Builder& b = c.b;
  const Value x = c.operand(0);
  const Shape shape = b.shape(x);
  if (shape.size() < 2) c.fail("a matrix expected, found " + to_string(shape));
  const double k = c.has_operand(1) ? c.number(1, "k") : 0;
  const bool upper = c.integer("upper", 1) != 0;
  const Value place = diagonal(b, shape), bound = b.constant_like(place, k);
  return {b.select(b.call("less_equal", {upper ? bound : place, upper ? place : bound}), x, b.constant_like(x, 0))};
}

std::vector<Value> import_eye_like(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  if (shape.size() != 2) c.fail("a matrix expected, found " + to_string(shape));
  DType type = b.dtype(c.operand(0));
  if (c.has_attribute("dtype")) {
    const auto wanted = static_cast<int32_t>(c.integer("dtype"));
    const std::optional<DType> known = element_type(wanted);
    if (!known) c.fail("elements of type " + element_type_name(wanted) + " are not supported");
    type = *known;
  }
  const Value place = diagonal(b, shape);
  return {b.cast(b.call("eq", {place, b.constant_like(place, static_cast<double>(c.integer("k", 0)))}), type)};
}

const std::vector<OnnxOperator> kRows{
    {"ArgMax", {1, 12}, 1, 1, import_arg_extremum},
    {"ArgMin", {1, 12}, 1, 1, import_arg_extremum},
    {"CumProd", {26}, 2, 2, import_cum_prod, "the axis must be known when the model is compiled"},
    {"CumSum", {11}, 2, 2, import_cum_sum, "the axis must be known when the model is compiled"},
    {"EyeLike", {9}, 1, 1, import_eye_like},
    {"Hardmax", {1, 13}, 1, 1, import_hardmax},
    {"TopK", {1, 10, 11}, 1, 2, import_top_k, "k must be known when the model is compiled; at most 8192 elements"},
    {"Trilu", {14}, 1, 2, import_trilu, "the diagonal must be known when the model is compiled"},
};

}  // namespace

std::span<const OnnxOperator> order_operators() { return kRows; }

}  // namespace halfstep
