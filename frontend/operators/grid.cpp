// Operators that read or write the elements of an image where another tensor says.
#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "frontend/import/operators.h"
#include "frontend/operators/resampling.h"
#include "frontend/operators/window.h"
#include "frontend/operators/written_table.h"

namespace halfstep {
namespace {

// ---- AffineGrid ----

// The coordinate of position i of `size`, in [-1, 1]: of the centres of pixels or of the corners' centres.
double grid_coordinate(int64_t i, int64_t size, bool corners) {
  const double at = static_cast<double>(i), n = static_cast<double>(size);
  if (corners) return size == 1 ? 0 : 2 * at / (n - 1) - 1;
  return (2 * at + 1) / n - 1;
}

// theta [N, r, r + 1] times (x, y.., 1) of every position: sums of at most four products, which stay in f32.
std::vector<Value> import_affine_grid(NodeContext& c) {
  Builder& b = c.b;
  const Shape theta = c.shape(0);
  const Ints size = c.ints(1, "size");
  const bool corners = c.integer("align_corners", 0) != 0;
  const size_t axes = theta.size() == 3 ? static_cast<size_t>(theta[1]) : 0;
  if ((axes != 2 && axes != 3) || theta[2] != theta[1] + 1 || size.size() != axes + 2)
    c.fail("theta [N, 2, 3] or [N, 3, 4] and size [N, C, spatial...] expected, found " + to_string(theta) + " and " +
           to_string(size));
  Shape shape{theta[0]};
  shape.insert(shape.end(), size.begin() + 2, size.end());
  checked_element_count(shape, "size");
  shape.push_back(theta[1]);
  const auto column = [&](size_t j) {  // of theta, beside every position
    Shape beside(shape.size(), 1);
    beside.front() = theta[0], beside.back() = theta[1];
    const auto k = static_cast<int64_t>(j);
    return b.reshape(b.slice(c.operand(0), {0, 0, k}, {theta[0], theta[1], k + 1}), beside);
  };
  Value grid = b.broadcast(column(axes), shape);
  for (size_t j = 0; j < axes; ++j) {
    const size_t axis = axes - 1 - j;  // x runs along the last one
    const int64_t extent = shape[axis + 1];
    Shape beside(shape.size() - axis - 1, 1);
    beside[0] = extent;
    Tensor coordinates = table_of({DType::f32, beside});
    for (int64_t i = 0; i < extent; ++i) coordinates.set(i, grid_coordinate(i, extent, corners));
    grid = b.add(grid, b.mul(column(j), b.broadcast(b.constant(coordinates), shape)));
  }
  return {grid};
}

// ---- GridSample ----

struct Sampling {
  enum Filter : uint8_t { nearest, linear, cubic } filter;
  bool corners;
  std::string padding;
};

Value clamped(Builder& b, Value x, double low, double high) {
  return b.binary("min", b.binary("max", x, b.constant_like(x, low)), b.constant_like(x, high));
}

// A whole number of [low, high] as a constant of the gradient, which it is almost everywhere.
Value whole_number(Builder& b, std::string_view rounding, Value x, double low, double high) {
  return b.cast(b.cast(clamped(b, b.unary(rounding, x), low, high), DType::i64), b.dtype(x));
}

constexpr double kMostTurns = 1 << 20;

// x mirrored at low and high until it lies between them.
Value reflected(Builder& b, Value x, double low, double high) {
  const double span = high - low;
  if (span == 0) return b.constant_like(x, low);
  const Value distance = b.unary("abs", b.add(x, -low));
  const Value turns = whole_number(b, "floor", b.mul(distance, 1 / span), 0, kMostTurns);
  const Value rest = b.sub(distance, b.mul(turns, span));
  const Value odd = b.sub(turns, b.mul(whole_number(b, "floor", b.mul(turns, 0.5), 0, kMostTurns), 2));
  const Value forward = b.add(rest, low), backward = b.sub(b.constant_like(rest, high), rest);
  return b.select(b.binary("eq", odd, b.constant_like(odd, 0)), forward, backward);
}

// Positions along an axis of `size` elements brought into it, where the padding does not mean zeros outside.
Value padded(Builder& b, Value at, int64_t size, const Sampling& s) {
  const double n = static_cast<double>(size), low = s.corners ? 0 : -0.5, high = s.corners ? n - 1 : n - 0.5;
  if (s.padding == "reflection") at = reflected(b, at, low, high);
  return s.padding == "zeros" ? at : clamped(b, at, 0, n - 1);
}

// Where along an axis of `size` elements the samples lie, also outside; grid is in [-1, 1].
Value sample_position(Builder& b, Value grid, int64_t size, const Sampling& s) {
  const double n = static_cast<double>(size);
  return s.corners ? b.mul(b.add(grid, 1), (n - 1) / 2) : b.add(b.mul(b.add(grid, 1), n / 2), -0.5);
}

// One of the elements around each sample, along one axis: its index, and its weight, which is 0 outside.
struct Neighbour {
  Value index, weight;
};

Neighbour neighbour(Builder& b, Value whole, Value weight, int64_t size) {
  const Value zero = b.constant_like(whole, 0), last = b.constant_like(whole, static_cast<double>(size - 1));
  const Value inside = b.binary("and", b.binary("less_equal", zero, whole), b.binary("less_equal", whole, last));
  return {b.cast(b.select(inside, whole, zero), DType::i64), b.select(inside, weight, b.constant_like(weight, 0))};
}

// Keys 1981, equation 4, with a = -0.75: the weight of an element at a distance below 1, or from 1 to 2.
Value cubic_weight(Builder& b, Value distance, bool is_near) {
  constexpr double a = -0.75;
  const auto times = [&](Value v, double constant) { return b.add(b.mul(v, distance), constant); };
  if (is_near) return times(times(b.add(b.mul(distance, a + 2), -(a + 3)), 0), 1);
  return times(times(b.add(b.mul(distance, a), -5 * a), 8 * a), -4 * a);
}

// Two elements before each sample and two behind it, each padded for itself, as PyTorch does.
std::vector<Neighbour> cubic_neighbours(Builder& b, Value at, int64_t size, const Sampling& s) {
  const double beyond = s.padding == "reflection" ? kMostTurns : 4;  // all four elements are one, or zeros
  at = clamped(b, at, -beyond, static_cast<double>(size) + beyond);
  const Value below = whole_number(b, "floor", at, -beyond, static_cast<double>(size) + beyond);
  std::vector<Neighbour> four;
  for (int i = -1; i <= 2; ++i) {
    const Value whole = b.add(below, i), distance = b.unary("abs", b.sub(at, whole));
    four.push_back(neighbour(b, padded(b, whole, size, s), cubic_weight(b, distance, i == 0 || i == 1), size));
  }
  return four;
}

std::vector<Neighbour> neighbours(Builder& b, Value at, int64_t size, const Sampling& s) {
  if (s.filter == Sampling::cubic) return cubic_neighbours(b, at, size, s);
  at = padded(b, at, size, s);
  const auto outside = static_cast<double>(size);  // as good as anything beyond
  if (s.filter == Sampling::nearest)
    return {neighbour(b, whole_number(b, "round", at, -1, outside), b.constant_like(at, 1), size)};
  const Value below = whole_number(b, "floor", at, -2, outside), fraction = b.sub(at, below);
  return {neighbour(b, below, b.sub(b.constant_like(at, 1), fraction), size),
          neighbour(b, b.add(below, 1), fraction, size)};
}

Sampling read_sampling(NodeContext& c) {
  const std::string mode = c.text("mode", "linear");
  const bool is_cubic = mode == "bicubic" || mode == "cubic";  // opset 16 had the names of two axes
  if (!is_cubic && mode != "linear" && mode != "bilinear" && mode != "nearest")
    c.fail("mode '" + mode + "' is unknown");
  const Sampling s{is_cubic            ? Sampling::cubic
                   : mode == "nearest" ? Sampling::nearest
                                       : Sampling::linear,
                   c.integer("align_corners", 0) != 0, c.text("padding_mode", "zeros")};
  if (s.padding != "zeros" && s.padding != "border" && s.padding != "reflection")
    c.fail("padding_mode '" + s.padding + "' is unknown");
  return s;
}

std::vector<Value> import_grid_sample(NodeContext& c) {
  Builder& b = c.b;
  const Shape x = c.shape(0), grid = c.shape(1), spatial = spatial_shape(c, x);
  const size_t axes = spatial.size();
  if (grid.size() != x.size() || grid[0] != x[0] || grid.back() != static_cast<int64_t>(axes))
    c.fail("x " + to_string(x) + " and grid " + to_string(grid) + " do not fit");
  if (checked_element_count(spatial, "x") == 0) c.fail("x " + to_string(x) + " has no element to sample");
  const Sampling s = read_sampling(c);
  const Shape samples(grid.begin(), grid.end() - 1);  // [N, out...]
  const Value rows = b.reshape(to_channels_last(b, c.operand(0)), {x[0] * checked_element_count(spatial, "x"), x[1]});
  // All combinations of neighbours, axis after axis: index [N, out...] of rows, weight [N, out...].
  std::vector<Neighbour> corners{{b.call("iota", {}, {{"shape", samples}, {"axis", int64_t{0}}}), Value{}}};
  for (size_t axis = 0; axis < axes; ++axis) {
    Ints starts(grid.size(), 0), limits = grid;
    starts.back() = static_cast<int64_t>(axes - 1 - axis), limits.back() = starts.back() + 1;
    const Value coordinate = b.reshape(b.slice(c.operand(1), starts, limits), samples);
    std::vector<Neighbour> next;
    for (const Neighbour& n : neighbours(b, sample_position(b, coordinate, spatial[axis], s), spatial[axis], s))
      for (const Neighbour& before : corners)
        next.push_back({b.add(b.mul(before.index, static_cast<double>(spatial[axis])), n.index),
                        before.weight ? b.mul(before.weight, n.weight) : n.weight});
    corners = std::move(next);
  }
  Value sum;
  Shape beside = samples;
  beside.push_back(1);
  for (const Neighbour& corner : corners) {
    const Value read = b.call("gather", {rows, corner.index}, {{"axis", int64_t{0}}});
    const Value term = b.mul(read, b.reshape(corner.weight, beside));
    sum = sum ? b.add(sum, term) : term;
  }
  return {to_channels_first(b, sum)};
}

// ---- MaxUnpool ----

std::vector<Value> import_max_unpool(NodeContext& c) {
  Builder& b = c.b;
  const Shape x = c.shape(0), spatial = spatial_shape(c, x);
  const TransposedWindow t = read_transposed_window(c, spatial, c.int_list("kernel_shape"));
  if (c.shape(1) != x) c.fail("indices as x " + to_string(x) + " expected, found " + to_string(c.shape(1)));
  Shape whole{x[0], x[1]};
  whole.insert(whole.end(), t.output.begin(), t.output.end());
  const int64_t count = checked_element_count(whole, "the result"), given = checked_element_count(x, "x");
  const Value zeros = b.broadcast(b.constant(b.dtype(c.operand(0)), 0), {count});
  const Value placed = b.call("scatter", {zeros, b.reshape(c.operand(1), {given}), b.reshape(c.operand(0), {given})},
                              {{"axis", int64_t{0}}});
  const Value y = b.reshape(placed, whole);
  if (!c.has_operand(2)) return {y};
  // The indices are those of the size that the window makes; a larger result has zeros behind it.
  const Ints shape = c.ints(2, "output_shape");
  if (shape.size() != whole.size()) c.fail("output_shape " + to_string(shape) + " for " + to_string(whole));
  Ints more(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    more[i] = shape[i] - whole[i];
    if (shape[i] < 0) c.fail("output_shape " + to_string(shape) + " has a negative entry");
  }
  return {pad_or_crop(b, y, Ints(shape.size(), 0), more, 0)};
}

const std::vector<OnnxOperator> kRows{
    {"AffineGrid", {20}, 2, 2, import_affine_grid, "the size must be known when the model is compiled"},
    {"GridSample",
     {16, 20},
     2,
     2,
     import_grid_sample,
     "1 to 3 spatial axes; cubic pads each element it reads, as PyTorch does"},
    {"MaxUnpool", {9}, 2, 3, import_max_unpool, "the output shape must be known when the model is compiled"},
};

}  // namespace

std::span<const OnnxOperator> grid_operators() { return kRows; }

}  // namespace halfstep
