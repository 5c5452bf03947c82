// Rows chosen by indices from memory. Indices count from 0; the frontend wraps negative ones.
#include <algorithm>
#include <array>
#include <cmath>

#include "ir/ops/families.h"

namespace halfstep {
namespace {

using ops::axis_of;
using ops::expect;
using ops::rank;

// [outer, rows, inner]: how an operand's axis sees its tensor.
struct Rows {
  int64_t outer = 1, count = 1, inner = 1;
};

Rows rows_of(const Node& node, const TensorType& x) {
  const size_t axis = static_cast<size_t>(node.attributes.integer("axis"));
  Rows rows{.count = x.shape[axis]};
  for (size_t i = 0; i < rank(x); ++i)
    if (i != axis) (i < axis ? rows.outer : rows.inner) *= x.shape[i];
  return rows;
}

// x[:axis] + indices + x[axis+1:]
TensorType chosen_type(const TypeContext& c) {
  const TensorType &x = c.operand(0), &indices = c.operand(1);
  expect(indices.dtype == DType::i64 || indices.dtype == DType::i32,
         "i64 or i32 indices expected, found " + to_string(indices));
  const size_t axis = axis_of(c.attributes, rank(x));
  TensorType result{x.dtype, Shape(x.shape.begin(), x.shape.begin() + static_cast<std::ptrdiff_t>(axis))};
  result.shape.insert(result.shape.end(), indices.shape.begin(), indices.shape.end());
  result.shape.insert(result.shape.end(), x.shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, x.shape.end());
  expect(x.element_count() > 0 || result.element_count() == 0, "there is no row to choose from");
  return result;
}

std::vector<TensorType> gather_type(const TypeContext& c) { return {chosen_type(c)}; }

void evaluate_gather(const EvaluateContext& c) {
  const Rows rows = rows_of(c.node, c.types[0]);
  size_t at = 0;
  for (int64_t o = 0; o < rows.outer; ++o)
    for (double index : *c.operands[1]) {
      const auto row = static_cast<int64_t>(index);
      const bool exists = row >= 0 && row < rows.count;
      for (int64_t i = 0; i < rows.inner; ++i)
        c.results[0][at++] =
            exists ? (*c.operands[0])[static_cast<size_t>((o * rows.count + row) * rows.inner + i)] : 0;
    }
}

Value gather(Builder& b, Value x, Value indices, const Attributes& attributes) {
  return b.call("gather", {x, indices}, {{"axis", attributes.integer("axis")}});
}

Value scatter(Builder& b, Value data, Value indices, Value updates, int64_t axis, std::string reduction) {
  return b.call("scatter", {data, indices, updates}, {{"axis", axis}, {"reduction", std::move(reduction)}});
}

Value splat_of(Builder& b, Value like, double value) {
  return b.broadcast(b.constant(b.dtype(like), value), b.shape(like));
}

std::vector<Value> gather_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  return {scatter(b, splat_of(b, c.operands[0], 0), c.operands[1], c.cotangents[0], c.node.attributes.integer("axis"),
                  "add"),
          {}};
}

constexpr std::array<std::string_view, 5> kReductions{"set", "add", "mul", "min", "max"};

std::vector<TensorType> scatter_type(const TypeContext& c) {
  const TensorType &data = c.operand(0), &updates = c.operand(2);
  TensorType expected = chosen_type(c);
  // Low updates may be summed in an f32 tensor as they are.
  if (data.dtype == DType::f32 && is_low(updates.dtype)) expected.dtype = updates.dtype;
  expect(updates == expected, "updates " + to_string(expected) + " expected, found " + to_string(updates));
  const std::string& reduction = c.attributes.text("reduction");
  expect(std::find(kReductions.begin(), kReductions.end(), reduction) != kReductions.end(),
         "reduction '" + reduction + "' is not set, add, mul, min or max");
  return {data};
}

double combined(std::string_view reduction, double old, double update) {
  if (reduction == "add") return old + update;
  if (reduction == "mul") return old * update;
  if (reduction == "min") return std::isnan(old) || old < update ? old : update;
  if (reduction == "max") return std::isnan(old) || old > update ? old : update;
  return update;
}

void evaluate_scatter(const EvaluateContext& c) {
  const Rows rows = rows_of(c.node, c.types[0]);
  const std::string& reduction = c.node.attributes.text("reduction");
  c.results[0] = *c.operands[0];
  size_t at = 0;
  for (int64_t o = 0; o < rows.outer; ++o)
    for (double index : *c.operands[1])
      for (int64_t i = 0; i < rows.inner; ++i) {
        const double update = (*c.operands[2])[at++];
        const auto row = static_cast<int64_t>(index);
        if (row < 0 || row >= rows.count) continue;
        double& value = c.results[0][static_cast<size_t>((o * rows.count + row) * rows.inner + i)];
        value = combined(reduction, value, update);
      }
}

// Whether an update is the last one of its row: bool in the updates' shape.
Value is_last(const VjpContext& c) {
  Builder& b = c.builder;
  const Value indices = c.operands[1];
  const int64_t axis = c.node.attributes.integer("axis");
  const Shape positions = b.shape(indices), shape = b.shape(c.operands[2]);
  const int64_t count = b.type(indices).element_count(), rows = c.node.results[0].shape[static_cast<size_t>(axis)];
  const Value number = b.reshape(b.call("iota", {}, {{"shape", Ints{count}}, {"axis", int64_t{0}}}), positions);
  const Value none = b.broadcast(b.constant(DType::i64, -1), {rows});
  const Value last = b.call("gather", {scatter(b, none, indices, number, 0, "set"), indices}, {{"axis", int64_t{0}}});
  Shape apart(shape.size(), 1);
  std::copy(positions.begin(), positions.end(), apart.begin() + axis);
  return b.broadcast(b.reshape(b.call("eq", {last, number}), apart), shape);
}

std::vector<Value> scatter_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value data = c.operands[0], indices = c.operands[1], updates = c.operands[2], y = c.results[0];
  const Value g = b.cast(c.cotangents[0], b.dtype(data));
  const int64_t axis = c.node.attributes.integer("axis");
  const std::string& reduction = c.node.attributes.text("reduction");
  const auto read = [&](Value v) { return b.cast(gather(b, v, indices, c.node.attributes), b.dtype(updates)); };
  if (b.type(updates).element_count() == 0) return {g, {}, splat_of(b, updates, 0)};
  if (reduction == "add") return {g, {}, read(g)};
  if (reduction == "set")
    return {scatter(b, g, indices, splat_of(b, updates, 0), axis, "set"),
            {},
            b.select(is_last(c), read(g), splat_of(b, updates, 0))};
  // The derivative by one factor is the product of the others: of all over this one, and where it is 0, of the rest if
  // that has no second 0.
  if (reduction == "mul") {
    const auto is_zero = [&](Value v) { return b.call("eq", {v, splat_of(b, v, 0)}); };
    const auto zeros = [&](Value v) { return b.cast(is_zero(v), b.dtype(v)); };
    const auto rest = [&](Value v) { return b.select(is_zero(v), splat_of(b, v, 1), v); };
    const Value count = scatter(b, zeros(data), indices, zeros(updates), axis, "add");
    const Value product = scatter(b, rest(data), indices, rest(updates), axis, "mul");
    const Value single = b.select(b.call("eq", {count, splat_of(b, count, 1)}), product, splat_of(b, product, 0));
    return {b.mul(g, scatter(b, splat_of(b, data, 1), indices, updates, axis, "mul")),
            {},
            b.select(is_zero(updates), read(b.mul(g, single)), b.div(read(b.mul(g, y)), rest(updates)))};
  }
  // Split evenly among those that attain the extremum.
  const Value kept = b.cast(b.call("eq", {data, y}), b.dtype(data));
  const Value attained = b.cast(b.call("eq", {updates, read(y)}), b.dtype(updates));
  const Value share = b.div(g, scatter(b, kept, indices, attained, axis, "add"));
  return {b.mul(kept, share), {}, b.mul(attained, read(share))};
}

const std::vector<Op> kOps{
    // An index out of range reads 0, as scatter, its gradient, gives what it does not have to no row.
    {.name = "gather",
     .onnx = "Gather",
     .operands = {{"x"}, {"indices"}},
     .attributes = {{"axis", int64_t{0}}},
     .type = gather_type,
     .vjp = gather_vjp,
     .kernel = KernelKind::movement,
     .index_map = IndexMap::indirect,
     .evaluate = evaluate_gather},
    // data with its rows at `indices` replaced by (set: the last one stays), or combined with, those of updates; sums
    // and products in f32. An update whose index is out of range is dropped.
    {.name = "scatter",
     .operands = {{"data"}, {"indices"}, {"updates"}},
     .attributes = {{"axis", int64_t{0}}, {"reduction", std::string("set"), AttributeSpec::defaulted}},
     .type = scatter_type,
     .precision = Precision::widest,
     .vjp = scatter_vjp,
     .kernel = KernelKind::movement,
     .index_map = IndexMap::scattered,
     .evaluate = evaluate_scatter},
};

}  // namespace

std::span<const Op> indexing_ops() { return kOps; }

}  // namespace halfstep
