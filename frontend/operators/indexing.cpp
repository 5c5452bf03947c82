// Operators that choose elements by index.
#include <algorithm>

#include "frontend/import/indices.h"
#include "frontend/import/operators.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

// Integer indices into an axis of `size`, with negative ones counted from its end.
Value wrapped(NodeContext& c, Value indices, int64_t size) {
  Builder& b = c.b;
  if (is_floating(b.dtype(indices))) c.fail("integer indices expected, found " + to_string(b.type(indices)));
  if (const std::optional<Tensor> known = c.importer().constants().evaluate(indices);
      known && std::ranges::none_of(known->values(), [](double i) { return i < 0; }))
    return indices;
  const Value end = b.constant_like(indices, static_cast<double>(size));
  return b.select(b.binary("less", indices, b.constant_like(indices, 0)), b.add(indices, end), indices);
}

// Known rows of an axis: a slice where they lie at equal distances, which needs no table.
Value choose(Builder& b, Value x, size_t axis, const Tensor& indices) {
  const Shape shape = b.shape(x);
  const std::vector<double> rows = indices.values();
  const double step = rows.size() > 1 ? rows[1] - rows[0] : 1;
  bool even = !rows.empty() && step > 0;
  for (size_t i = 1; i < rows.size(); ++i) even &= rows[i] - rows[i - 1] == step;
  if (!even) return gather(b, x, b.constant(indices), axis);
  Ints starts(shape.size(), 0), limits = shape, steps(shape.size(), 1);
  starts[axis] = static_cast<int64_t>(rows.front()), limits[axis] = static_cast<int64_t>(rows.back()) + 1;
  steps[axis] = static_cast<int64_t>(step);
  Shape result(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(axis));
  result.insert(result.end(), indices.type.shape.begin(), indices.type.shape.end());
  result.insert(result.end(), shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end());
  return b.reshape(b.slice(x, starts, limits, steps), result);
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

Value gather_constant(NodeContext& c, size_t axis, Tensor indices) {
  const int64_t size = c.shape(0)[axis];
  const bool baked = indices.type.shape.size() > 1 || c.sizes(1, "indices").is_baked();
  if (exported_sizes(c.dimensions(0))[axis] != size && baked)
    if (const std::optional<Dimensions> whole = whole_axis(c, axis, indices)) {
      c.set_dimensions(0, *whole);
      return c.b.reshape(c.operand(0), wanted_sizes(*whole));
    }
  for (int64_t& v : indices.as<int64_t>()) {
    if (baked) c.check_position(v, 0, axis);
    if (v < -size || v >= size)
      c.fail("index " + std::to_string(v) + " is outside axis " + std::to_string(axis) + " of " +
             to_string(c.shape(0)));
    if (v < 0) v += size;
  }
  return choose(c.b, c.operand(0), axis, indices);
}

std::vector<Value> import_gather(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  const size_t axis = c.axis(c.integer("axis", 0), shape.size());
  const Value indices = c.operand(1);
  if (is_floating(b.dtype(indices))) c.fail("integer indices expected, found " + to_string(b.type(indices)));
  // An embedding table: rows of unit variance, as PyTorch's.
  c.initialise(c.operand(0), {Initializer::normal, 1, Initializer::table});
  if (c.is_constant(1)) return {gather_constant(c, axis, c.constant(1, "indices").cast(DType::i64))};
  return {gather(b, c.operand(0), wrapped(c, indices, shape[axis]), axis)};
}

// The element of a tensor of `shape` that each index of GatherElements and ScatterElements means, row-major.
Value named_elements(NodeContext& c, const Shape& shape, size_t axis) {
  const Shape at = c.shape(1);
  bool fits = at.size() == shape.size();
  for (size_t i = 0; fits && i < at.size(); ++i) fits = i == axis || at[i] <= shape[i];
  if (!fits) c.fail("indices " + to_string(at) + " do not fit into " + to_string(shape));
  return element_numbers(c.b, wrapped(c, c.operand(1), shape[axis]), shape, axis);
}

std::vector<Value> import_gather_elements(NodeContext& c) {
  const size_t axis = c.axis(c.integer("axis", 0), c.shape(0).size());
  for (size_t i = 0; i < std::min(c.shape(0).size(), c.shape(1).size()); ++i)
    if (i != axis) c.align({i, i});
  return {gather(c.b, flat(c.b, c.operand(0)), named_elements(c, c.shape(0), axis))};
}

// The last axis of the indices names the axes of x behind its first `batch` ones, which are those of the indices.
struct NamedRows {
  Value rows;    // x with all named axes as one
  Value number;  // of the row that each index names
};
NamedRows named_rows(NodeContext& c, size_t batch) {
  Builder& b = c.b;
  for (size_t i = 0; i < batch; ++i) c.align({i, i});
  const Shape shape = c.shape(0), at = c.shape(1);
  const size_t named = at.empty() ? 0 : static_cast<size_t>(at.back());
  if (at.size() <= batch || at.back() < 1 || batch + named > shape.size())
    c.fail("indices " + to_string(at) + " do not name rows of " + to_string(shape));
  const auto rest = shape.begin() + static_cast<std::ptrdiff_t>(batch + named);
  const Shape outer(shape.begin(), rest), result(at.begin(), at.end() - 1);
  const std::vector<int64_t> strides = row_major_strides(outer);
  Value number;
  const auto add = [&](Value v, size_t i) {
    const Value scaled = b.mul(v, static_cast<double>(strides[i]));
    number = number ? b.add(number, scaled) : scaled;
  };
  for (size_t i = 0; i < batch; ++i) {
    if (at[i] != shape[i]) c.fail("indices " + to_string(at) + " differ from " + to_string(shape) + " in a batch axis");
    add(positions(b, result, i), i);
  }
  const Value indices = c.operand(1);
  for (size_t i = 0; i < named; ++i) {
    Ints starts(at.size(), 0), limits = at;
    starts.back() = static_cast<int64_t>(i), limits.back() = starts.back() + 1;
    const Value one = b.reshape(b.slice(indices, starts, limits), result);
    add(b.cast(wrapped(c, one, shape[batch + i]), DType::i64), batch + i);
  }
  Shape rows{TensorType{DType::u8, outer}.element_count()};
  rows.insert(rows.end(), rest, shape.end());
  return {b.reshape(c.operand(0), rows), number};
}

std::vector<Value> import_gather_nd(NodeContext& c) {
  const NamedRows named = named_rows(c, c.axis_or_end(c.version >= 12 ? c.integer("batch_dims", 0) : 0,
                                                      std::min(c.shape(0).size(), c.shape(1).size())));
  return {gather(c.b, named.rows, named.number)};
}

Value scatter(NodeContext& c, Value data, Value indices, Value updates) {
  std::string reduction = c.text("reduction", "none");
  if (reduction == "none") reduction = "set";
  if (reduction != "set" && reduction != "add" && reduction != "mul" && reduction != "min" && reduction != "max")
    c.fail("reduction '" + reduction + "' is not none, add, mul, min or max");
  return c.b.call("scatter", {data, indices, updates}, {{"axis", int64_t{0}}, {"reduction", reduction}});
}

std::vector<Value> import_scatter_elements(NodeContext& c) {
  const size_t rank = c.shape(0).size(), axis = c.axis(c.integer("axis", 0), rank);
  for (size_t i = 0; i < rank && c.shape(1).size() == rank; ++i)
    c.align({i == axis ? std::nullopt : std::optional(i), i, i});
  const Shape shape = c.shape(0);
  const Value number = named_elements(c, shape, axis);
  if (c.shape(2) != c.b.shape(number))
    c.fail("updates " + to_string(c.shape(2)) + " and indices " + to_string(c.b.shape(number)) + " differ");
  return {c.b.reshape(scatter(c, flat(c.b, c.operand(0)), number, c.operand(2)), shape)};
}

// PyTorch assigns to parts of a tensor in this way: what it assigns is computed, or a number that the exporter
// repeated.
std::vector<Value> import_scatter_nd(NodeContext& c) {
  if (c.is_initializer(2)) c.importer().keep_if_folded(*c.binding(2).tensor);
  const NamedRows named = named_rows(c, 0);
  return {c.b.reshape(scatter(c, named.rows, named.number, c.operand(2)), c.shape(0))};
}

// Indices that are not below the depth leave a row of off values.
std::vector<Value> import_one_hot(NodeContext& c) {
  Builder& b = c.b;
  Shape shape = c.shape(0);
  const double depth = c.number(1, "depth");
  constexpr double kDeepest = 1 << 30;
  if (!(depth >= 0 && depth <= kDeepest)) c.fail("depth " + std::to_string(depth) + " is out of range");
  const size_t axis = c.axis(c.integer("axis", -1), shape.size() + 1);
  if (c.shape(2) != Shape{2}) c.fail("values: the off and the on value expected, found " + to_string(c.shape(2)));
  const auto place = shape.begin() + static_cast<std::ptrdiff_t>(axis);
  const Value at = wrapped(c, b.cast(c.operand(0), DType::i64), static_cast<int64_t>(depth));
  const Value apart = b.reshape(at, [&] {
    Shape with_one = shape;
    with_one.insert(with_one.begin() + static_cast<std::ptrdiff_t>(axis), 1);
    return with_one;
  }());
  shape.insert(place, static_cast<int64_t>(depth));
  const auto value = [&](int64_t i) { return b.broadcast(b.reshape(b.slice(c.operand(2), {i}, {i + 1}), {}), shape); };
  return {b.select(b.binary("eq", b.broadcast(apart, shape), positions(b, shape, axis)), value(1), value(0))};
}

std::vector<Value> import_non_zero(NodeContext& c) {
  const Tensor x = c.untrained(0, "X");
  const Shape shape = x.type.shape.empty() ? Shape{1} : x.type.shape;
  const std::vector<int64_t> strides = row_major_strides(shape);
  Ints numbers, indices;
  for (int64_t i = 0; i < x.type.element_count(); ++i)
    if (x.at(i) != 0) numbers.push_back(i);
  for (size_t axis = 0; axis < shape.size(); ++axis)
    for (int64_t n : numbers) indices.push_back(n / strides[axis] % shape[axis]);
  return {c.b.constant(integers(indices, {axis_number(shape.size()), axis_number(numbers.size())}))};
}

std::vector<Value> import_compress(NodeContext& c) {
  const Value x = c.has_attribute("axis") ? c.operand(0) : flat(c.b, c.operand(0));
  const size_t axis = c.axis(c.integer("axis", 0), c.b.shape(x).size());
  const Tensor condition = c.constant(1, "condition");
  Ints kept;
  for (int64_t i = 0; i < condition.type.element_count(); ++i)
    if (condition.at(i) != 0) kept.push_back(i);
  if (!kept.empty() && kept.back() >= c.b.shape(x)[axis])
    c.fail("condition " + to_string(condition.type) + " is longer than axis " + std::to_string(axis) + " of " +
           to_string(c.b.shape(x)));
  for (int64_t i : kept) c.check_position(i, 0, c.has_attribute("axis") ? axis : 0);
  return {choose(c.b, x, axis, integers(kept, {axis_number(kept.size())}))};
}

// The first `length` steps of each sequence backwards.
std::vector<Value> import_reverse_sequence(NodeContext& c) {
  Builder& b = c.b;
  const Shape shape = c.shape(0);
  if (shape.size() < 2) c.fail("an axis of steps and one of sequences expected, found " + to_string(shape));
  const size_t time = c.axis(c.integer("time_axis", 0), 2), batch = c.axis(c.integer("batch_axis", 1), 2);
  if (time == batch) c.fail("time_axis and batch_axis are the same");
  c.align({batch, size_t{0}});
  if (c.shape(1) != Shape{shape[batch]})
    c.fail("one length for each of " + std::to_string(shape[batch]) + " sequences expected, found " +
           to_string(c.shape(1)));
  const Shape grid(shape.begin(), shape.begin() + 2);
  Shape apart{1, 1};
  apart[batch] = grid[batch];
  const Value length = b.broadcast(b.reshape(b.cast(c.operand(1), DType::i64), apart), grid);
  const Value step = positions(b, grid, time);
  const Value source = b.select(b.binary("less", step, length), b.add(b.sub(length, step), -1), step);
  const std::vector<int64_t> strides = row_major_strides(grid);
  const Value row = b.add(b.mul(source, static_cast<double>(strides[time])),
                          b.mul(positions(b, grid, batch), static_cast<double>(strides[batch])));
  Shape rows{grid[0] * grid[1]};
  rows.insert(rows.end(), shape.begin() + 2, shape.end());
  return {gather(b, b.reshape(c.operand(0), rows), row)};
}

const std::vector<OnnxOperator> kRows{
    {"Compress", {9}, 2, 2, import_compress, "the condition must be known when the model is compiled"},
    {"Gather", {1}, 2, 2, import_gather},
    {"GatherElements", {11}, 2, 2, import_gather_elements},
    {"GatherND", {11, 12}, 2, 2, import_gather_nd},
    {"NonZero", {9}, 1, 1, import_non_zero, "the operand must be known when the model is compiled"},
    {"OneHot", {9}, 3, 3, import_one_hot, "the depth must be known when the model is compiled"},
    {"ReverseSequence", {10}, 2, 2, import_reverse_sequence},
    {"Scatter", {9}, 3, 3, import_scatter_elements},
    {"ScatterElements",
     {11, 16},
     3,
     3,
     import_scatter_elements,
     "of repeated indices without a reduction the last one stays"},
    {"ScatterND", {11, 16}, 3, 3, import_scatter_nd, "of repeated indices without a reduction the last one stays"},
};

}  // namespace

std::span<const OnnxOperator> indexing_operators() { return kRows; }

}  // namespace halfstep
