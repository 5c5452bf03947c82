// Movement, indexing, reductions and random numbers.
#include <algorithm>
#include <numeric>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "frontend/export/operator_rows.h"

namespace halfstep {
namespace {

const OnnxValue& x(const ExportContext& c) { return c.operands[0]; }

std::vector<OnnxValue> reshape(const ExportContext& c) { return {c.onnx.reshape(x(c), c.results[0].shape)}; }
std::vector<OnnxValue> broadcast(const ExportContext& c) { return {c.onnx.expand(x(c), c.results[0].shape)}; }
std::vector<OnnxValue> transpose(const ExportContext& c) {
  return {c.onnx.transpose(x(c), c.node.attributes.ints("permutation"))};
}
std::vector<OnnxValue> slice(const ExportContext& c) {
  const Attributes& a = c.node.attributes;
  return {c.onnx.slice(x(c), a.ints("starts"), a.ints("limits"), a.ints("steps"))};
}
std::vector<OnnxValue> concat(const ExportContext& c) {
  return {
      c.onnx.concat({c.operands.begin(), c.operands.end()}, static_cast<size_t>(c.node.attributes.integer("axis")))};
}
std::vector<OnnxValue> itself(const ExportContext& c) { return {x(c)}; }

// Between the elements of an axis: [n] -> [n, 1], padded to [n, 1 + interior], [n (1 + interior)], without the last
// `interior`.
OnnxValue spread(OnnxBuilder& onnx, OnnxValue v, const Ints& interior, double value) {
  for (size_t axis = 0; axis < interior.size(); ++axis) {
    if (interior[axis] == 0 || v.type.shape[axis] < 2) continue;
    const Shape before = v.type.shape;
    const auto behind = static_cast<std::ptrdiff_t>(axis) + 1;
    Shape split = before, merged = before;
    split.insert(split.begin() + behind, 1);
    merged[axis] *= 1 + interior[axis];
    Ints low(split.size(), 0), high = low;
    high[axis + 1] = interior[axis];
    Ints limits = merged;
    limits[axis] -= interior[axis];
    v = onnx.reshape(onnx.pad(onnx.reshape(v, split), low, high, value), merged);
    v = onnx.slice(v, Ints(limits.size(), 0), limits);
  }
  return v;
}

std::vector<OnnxValue> pad(const ExportContext& c) {
  const Attributes& a = c.node.attributes;
  const auto per_axis = [&](const char* name) {
    const Ints& values = a.ints(name);
    return values.empty() ? Ints(x(c).type.shape.size(), 0) : values;
  };
  const double value = a.number("value");
  const bool is_boolean = x(c).type.dtype == DType::boolean;
  const OnnxValue v = is_boolean ? c.onnx.cast(x(c), DType::i32) : x(c);
  return {
      c.onnx.cast(c.onnx.pad(spread(c.onnx, v, per_axis("interior"), value), per_axis("low"), per_axis("high"), value),
                  x(c).type.dtype)};
}

// 0, 1, ... along an axis of rank 1.
OnnxValue counting(OnnxBuilder& onnx, int64_t count) {
  return onnx.node(
      "Range",
      {onnx.scalar(DType::i64, 0), onnx.scalar(DType::i64, static_cast<double>(count)), onnx.scalar(DType::i64, 1)},
      {DType::i64, {count}});
}

std::vector<OnnxValue> iota(const ExportContext& c) {
  const Shape& shape = c.results[0].shape;
  const auto axis = static_cast<size_t>(c.node.attributes.integer("axis"));
  Shape alone(shape.size(), 1);
  alone[axis] = shape[axis];
  return {c.onnx.expand(c.onnx.reshape(counting(c.onnx, shape[axis]), alone), shape)};
}

std::vector<OnnxValue> constant(const ExportContext& c) { return {c.onnx.constant(c.node.attributes.tensor("value"))}; }

// ---- indexing: an index out of range reads 0 and receives nothing ----

OnnxValue in_range(OnnxBuilder& onnx, const OnnxValue& indices, int64_t rows) {
  return onnx.binary("And", onnx.compare("LessOrEqual", onnx.scalar(indices.type.dtype, 0), indices),
                     onnx.compare("Less", indices, onnx.scalar(indices.type.dtype, static_cast<double>(rows))));
}

// [outer.., indices.., inner..] of the same shape as what `axis` of x is replaced by.
OnnxValue beside(OnnxBuilder& onnx, const OnnxValue& v, size_t axis, size_t rank) {
  Shape shape(axis, 1);
  shape.insert(shape.end(), v.type.shape.begin(), v.type.shape.end());
  shape.resize(rank, 1);
  return onnx.reshape(v, shape);
}

std::vector<OnnxValue> gather(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const int64_t axis = c.node.attributes.integer("axis");
  const int64_t rows = x(c).type.shape[static_cast<size_t>(axis)];
  const OnnxAttributes along{{"axis", axis}};
  const OnnxValue indices = c.operands[1];
  if (rows == 0) return {o.expand(o.scalar(x(c).type.dtype, 0), c.results[0].shape)};
  const OnnxValue exists = in_range(o, indices, rows);
  const OnnxValue safe = o.select(exists, indices, o.scalar(indices.type.dtype, 0));
  const OnnxValue read = o.node("Gather", {x(c), safe}, c.results[0], along);
  const OnnxValue mask = beside(o, exists, static_cast<size_t>(axis), c.results[0].shape.size());
  if (read.type.dtype == DType::boolean) return {o.binary("And", read, mask)};
  return {o.select(mask, read, o.scalar(read.type.dtype, 0))};
}

// Data as [outer, rows, inner], updates as [outer, count, inner].
struct Scatter {
  OnnxBuilder& onnx;
  OnnxValue data, indices, updates;
  int64_t outer, rows, inner, count;
};

// With duplicates the last update stays, whatever the engine's order: for each row the largest number of an update.
OnnxValue scatter_last(const Scatter& s) {
  OnnxBuilder& o = s.onnx;
  const OnnxValue row = o.reshape(counting(o, s.rows), {s.rows, 1}), column = o.reshape(s.indices, {1, s.count});
  const OnnxValue number = o.reshape(counting(o, s.count), {1, s.count});
  const OnnxValue last =
      o.reshape(o.reduce("ReduceMax", o.select(o.compare("Equal", row, column), number, o.scalar(DType::i64, -1)), {1}),
                {s.rows});
  const OnnxValue has = o.compare("LessOrEqual", o.scalar(DType::i64, 0), last);
  const OnnxValue read =
      o.node("Gather", {s.updates, o.select(has, last, o.scalar(DType::i64, 0))}, s.data.type, {{"axis", int64_t{1}}});
  return o.select(o.reshape(has, {1, s.rows, 1}), read, s.data);
}

// A row behind the others takes what is out of range.
OnnxValue scatter_combined(const Scatter& s, const std::string& reduction) {
  OnnxBuilder& o = s.onnx;
  const OnnxValue exists = in_range(o, s.indices, s.rows);
  const OnnxValue safe = o.select(exists, s.indices, o.scalar(DType::i64, static_cast<double>(s.rows)));
  const OnnxValue at = o.expand(o.reshape(safe, {1, s.count, 1}), {s.outer, s.count, s.inner});
  const OnnxValue longer = o.pad(s.data, {0, 0, 0}, {0, 1, 0});
  const OnnxValue all =
      o.node("ScatterElements", {longer, at, s.updates}, longer.type, {{"axis", int64_t{1}}, {"reduction", reduction}});
  return o.slice(all, {0, 0, 0}, {s.outer, s.rows, s.inner});
}

std::vector<OnnxValue> scatter(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const auto axis = static_cast<size_t>(c.node.attributes.integer("axis"));
  const Shape& shape = c.results[0].shape;
  const auto product = [&](size_t begin, size_t end) {
    return std::accumulate(shape.begin() + static_cast<std::ptrdiff_t>(begin),
                           shape.begin() + static_cast<std::ptrdiff_t>(end), int64_t{1}, std::multiplies());
  };
  Scatter s{.onnx = o,
            .data = {},
            .indices = {},
            .updates = {},
            .outer = product(0, axis),
            .rows = shape[axis],
            .inner = product(axis + 1, shape.size()),
            .count = c.operands[1].type.element_count()};
  if (s.outer * s.rows * s.inner * s.count == 0) return {x(c)};
  s.data = o.reshape(x(c), {s.outer, s.rows, s.inner});
  s.indices = o.cast(o.reshape(c.operands[1], {s.count}), DType::i64);
  s.updates = o.cast(o.reshape(c.operands[2], {s.outer, s.count, s.inner}), s.data.type.dtype);
  const std::string& reduction = c.node.attributes.text("reduction");
  const OnnxValue result = reduction == "set" ? scatter_last(s) : scatter_combined(s, reduction);
  return {o.reshape(result, shape)};
}

// ---- reductions ----

template <char const* Name>
std::vector<OnnxValue> reduce(const ExportContext& c) {
  const OnnxValue v = c.onnx.reduce(Name, x(c), c.node.attributes.ints("axes"));
  return {v};
}
constexpr char kSum[] = "ReduceSum", kMax[] = "ReduceMax", kMin[] = "ReduceMin";

// ---- random numbers: Philox4x32-10 in 64-bit integers, of which no product or sum leaves 50 bits ----

constexpr int64_t kTwo16 = int64_t{1} << 16, kTwo32 = int64_t{1} << 32;

OnnxValue integer(OnnxBuilder& o, int64_t value) { return o.reshape(o.integers({value}), {}); }
OnnxValue modulo(OnnxBuilder& o, const OnnxValue& v, int64_t by) { return o.binary("Mod", v, integer(o, by)); }
OnnxValue quotient(OnnxBuilder& o, const OnnxValue& v, int64_t by) { return o.binary("Div", v, integer(o, by)); }

struct Words {
  OnnxValue high, low;
};

// The two words of factor * v, by halves of the factor.
Words product(OnnxBuilder& o, int64_t factor, const OnnxValue& v) {
  const OnnxValue low = o.binary("Mul", v, integer(o, factor % kTwo16)),
                  high = o.binary("Mul", v, integer(o, factor / kTwo16));
  const OnnxValue upper = quotient(o, o.binary("Add", high, quotient(o, low, kTwo16)), kTwo16);
  const OnnxValue shifted = o.binary("Mul", modulo(o, high, kTwo16), integer(o, kTwo16));
  return {upper, modulo(o, o.binary("Add", shifted, low), kTwo32)};
}

// base/philox.h
std::vector<OnnxValue> uniform(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  const Shape& shape = c.results[0].shape;
  const int64_t count = c.results[0].element_count();
  require(count < kTwo32, "elements of a random value are counted in 32 bits");
  const OnnxValue seed = c.operands[0], step = modulo(o, o.cast(c.operands[1], DType::i64), kTwo32);
  OnnxValue k0 = modulo(o, seed, kTwo32);
  OnnxValue k1 = modulo(o, quotient(o, o.binary("Sub", seed, k0), kTwo32), kTwo32);
  const int64_t blocks = ceil_div(count, 4);
  OnnxValue word[4] = {counting(o, blocks), integer(o, 0), integer(o, c.node.attributes.integer("site")), step};
  const auto mixed = [&](const OnnxValue& a, const OnnxValue& b, const OnnxValue& key) {
    return o.binary("BitwiseXor", o.binary("BitwiseXor", a, b), key);
  };
  for (int round = 0; round < 10; ++round) {
    const Words first = product(o, 0xD2511F53, word[0]), second = product(o, 0xCD9E8D57, word[2]);
    const OnnxValue one = word[1], three = word[3];
    word[0] = mixed(second.high, one, k0), word[1] = second.low;
    word[2] = mixed(first.high, three, k1), word[3] = first.low;
    k0 = modulo(o, o.binary("Add", k0, integer(o, 0x9E3779B9)), kTwo32);
    k1 = modulo(o, o.binary("Add", k1, integer(o, 0xBB67AE85)), kTwo32);
  }
  std::vector<OnnxValue> columns;
  for (const OnnxValue& w : word) columns.push_back(o.reshape(w, {blocks, 1}));
  const OnnxValue words = o.slice(o.reshape(o.concat(columns, 1), {4 * blocks}), {0}, {count});
  const OnnxValue upper = o.cast(quotient(o, words, 256), DType::f32);
  return {o.reshape(o.binary("Mul", upper, o.scalar(DType::f32, 0x1p-24)), shape)};
}

constexpr auto kMoves = ExportRow::moves;

constexpr ExportRow kRows[] = {
    {"constant", constant, kMoves}, {"broadcast", broadcast, kMoves},
    {"reshape", reshape, kMoves},   {"transpose", transpose, kMoves},
    {"slice", slice, kMoves},       {"pad", pad, kMoves},
    {"concat", concat, kMoves},     {"iota", iota},
    {"after", itself, kMoves},      {"uniform", uniform},
    {"gather", gather, kMoves},     {"scatter", scatter},
    {"reduce_sum", reduce<kSum>},   {"reduce_max", reduce<kMax>},
    {"reduce_min", reduce<kMin>},
};

}  // namespace

std::span<const ExportRow> movement_rows() { return kRows; }

}  // namespace halfstep
