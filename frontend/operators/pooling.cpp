// Pools over the spatial axes.
#include <algorithm>
#include <numeric>

#include "frontend/import/operators.h"
#include "frontend/operators/resampling.h"
#include "frontend/operators/window.h"

namespace halfstep {
namespace {

Ints plus(Ints x, const Ints& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  return x;
}

Attributes window_attributes(const Window& w) {
  return {{"window", w.size},
          {"strides", w.strides},
          {"pads_begin", w.pads_begin},
          {"pads_end", plus(w.pads_end, w.overhang)},
          {"dilations", w.dilations}};
}

// Per spatial axis to per axis of [N, spatial..., C].
Ints all_axes(const Ints& spatial) {
  Ints all(spatial.size() + 2, 0);
  std::copy(spatial.begin(), spatial.end(), all.begin() + 1);
  return all;
}

Window pool_window(NodeContext& c) {
  const Shape spatial = spatial_shape(c, c.shape(0));
  return read_window(c, spatial, c.int_list("kernel_shape"), CeilMode::attribute);
}

// ---- MaxPool ----

Value iota(Builder& b, const Shape& shape, size_t axis) {
  return b.call("iota", {}, {{"shape", shape}, {"axis", static_cast<int64_t>(axis)}});
}

Value plus_times(Builder& b, Value sum, Value v, int64_t factor) {
  const Value term = b.mul(v, static_cast<double>(factor));
  return sum ? b.add(sum, term) : term;
}

enum class StorageOrder : uint8_t { row_major, column_major };

// From the window element of each maximum to its place in x as ONNX counts it: over [N, C, spatial...], with the
// spatial axes in the given order.
Value flat_indices(Builder& b, Value element, const Shape& x, const Window& w, StorageOrder order) {
  const Shape y = b.shape(element);  // [N, out..., C]
  const size_t axes = w.size.size();
  Value rest = b.cast(element, DType::i64), flat;
  int64_t stride = 1;
  Ints strides(axes);
  for (size_t k = 0; k < axes; ++k) {
    const size_t i = order == StorageOrder::column_major ? k : axes - 1 - k;
    strides[i] = stride, stride *= x[i + 1];
  }
  for (size_t i = axes; i-- > 0;) {
    const Value next = b.div(rest, b.constant_like(rest, static_cast<double>(w.size[i])));
    const Value within = b.sub(rest, b.mul(next, static_cast<double>(w.size[i])));
    const Value first =
        b.add(b.mul(iota(b, y, i + 1), static_cast<double>(w.strides[i])), -static_cast<double>(w.pads_begin[i]));
    const Value position = plus_times(b, first, within, w.dilations[i]);
    flat = plus_times(b, flat, position, strides[i]);
    rest = next;
  }
  flat = plus_times(b, flat, iota(b, y, axes + 1), stride);
  return plus_times(b, flat, iota(b, y, 0), stride * x.back());
}

constexpr int64_t kMostElements = 256;  // of a window whose maximum has an index of 8 bits

int64_t element_count(const Ints& window) { return TensorType{DType::u8, window}.element_count(); }

// The maximum over one axis after another: the first of equal ones is the same.
Value separate_maxima(NodeContext& c, Value x, const Window& w) {
  for (size_t axis = w.size.size(); axis-- > 0;) {
    if (w.size[axis] > kMostElements)
      c.fail("a window of more than " + std::to_string(kMostElements) + " elements along an axis is not supported");
    Window one{Ints(w.size.size(), 1), Ints(w.size.size(), 1), Ints(w.size.size(), 0),
               Ints(w.size.size(), 0), Ints(w.size.size(), 1), Ints(w.size.size(), 0)};
    one.size[axis] = w.size[axis], one.strides[axis] = w.strides[axis], one.dilations[axis] = w.dilations[axis];
    one.pads_begin[axis] = w.pads_begin[axis], one.pads_end[axis] = w.pads_end[axis];
    one.overhang[axis] = w.overhang[axis];
    x = c.b.call("max_pool", {x}, window_attributes(one));
  }
  return x;
}

bool covers_all(const Window& w, const Shape& x) {
  for (size_t i = 0; i < w.size.size(); ++i)
    if (w.size[i] != x[i + 1] || w.dilations[i] != 1 || w.pads_begin[i] != 0 || w.pads_end[i] + w.overhang[i] != 0)
      return false;
  return true;
}

std::vector<Value> import_max_pool(NodeContext& c) {
  Builder& b = c.b;
  const auto order = c.integer("storage_order", 0) != 0 ? StorageOrder::column_major : StorageOrder::row_major;
  const Window w = pool_window(c);
  const Value x = to_channels_last(b, c.operand(0));
  const Shape shape = b.shape(x);
  if (element_count(w.size) > kMostElements) {
    Ints axes(w.size.size());
    std::iota(axes.begin(), axes.end(), 1);
    return {to_channels_first(b, covers_all(w, shape) ? b.reduce("reduce_max", x, axes) : separate_maxima(c, x, w))};
  }
  const std::vector<Value> pooled = b.call_all(op("max_pool"), {x}, window_attributes(w));
  if (!c.wants(1)) return {to_channels_first(b, pooled[0])};
  return {to_channels_first(b, pooled[0]), to_channels_first(b, flat_indices(b, pooled[1], shape, w, order))};
}

// ---- means and norms ----

std::vector<Value> import_average_pool(NodeContext& c) {
  const int64_t count_padding = c.integer("count_include_pad", 0) != 0;
  Window w = pool_window(c);
  Value x = to_channels_last(c.b, c.operand(0));
  Attributes attributes = window_attributes(w);
  if (count_padding && std::any_of(w.overhang.begin(), w.overhang.end(), [](int64_t n) { return n > 0; })) {
    // Padding counts, what lies behind it does not: pad first, and let the overhang be the only padding of the pool.
    x = c.b.call("pad", {x}, {{"low", all_axes(w.pads_begin)}, {"high", all_axes(w.pads_end)}});
    std::fill(w.pads_begin.begin(), w.pads_begin.end(), 0);
    std::fill(w.pads_end.begin(), w.pads_end.end(), 0);
    attributes = window_attributes(w);
  } else {
    attributes.set("count_include_pad", count_padding);
  }
  return {to_channels_first(c.b, c.b.call("avg_pool", {x}, attributes))};
}

// (sum |x|^p)^(1/p). Padding counts as 0, which a norm does not see.
Value power_of_magnitude(Builder& b, Value x, int64_t p) {
  if (p == 2) return b.mul(x, x);
  const Value magnitude = b.unary("abs", x);
  return p == 1 ? magnitude : b.binary("pow", magnitude, b.constant_like(x, static_cast<double>(p)));
}

Value root(Builder& b, Value sum, int64_t p) {
  if (p == 2) return b.unary("sqrt", sum);
  return p == 1 ? sum : b.binary("pow", sum, b.constant_like(sum, 1 / static_cast<double>(p)));
}

int64_t read_norm(NodeContext& c) {
  const int64_t p = c.integer("p", 2);
  if (p < 1) c.fail("p is " + std::to_string(p) + ", a positive one expected");
  return p;
}

std::vector<Value> import_lp_pool(NodeContext& c) {
  Builder& b = c.b;
  const int64_t p = read_norm(c);
  const Window w = pool_window(c);
  Attributes attributes = window_attributes(w);
  attributes.set("count_include_pad", int64_t{1});
  const Value mean = b.call("avg_pool", {power_of_magnitude(b, to_channels_last(b, c.operand(0)), p)}, attributes);
  return {to_channels_first(b, root(b, b.mul(mean, static_cast<double>(element_count(w.size))), p))};
}

Ints spatial_axes(NodeContext& c) {
  Ints axes;
  for (size_t i = 2; i < c.shape(0).size(); ++i) axes.push_back(static_cast<int64_t>(i));
  if (axes.empty()) c.fail("[N, C, spatial...] expected, found " + to_string(c.shape(0)));
  return axes;
}

std::vector<Value> import_global_average_pool(NodeContext& c) {
  const Ints axes = spatial_axes(c);
  double count = 1;
  for (int64_t axis : axes) count *= static_cast<double>(c.shape(0)[static_cast<size_t>(axis)]);
  return {c.b.mul(c.b.reduce("reduce_sum", c.operand(0), axes), 1 / count)};
}

std::vector<Value> import_global_max_pool(NodeContext& c) {
  return {c.b.reduce("reduce_max", c.operand(0), spatial_axes(c))};
}

std::vector<Value> import_global_lp_pool(NodeContext& c) {
  const int64_t p = read_norm(c);
  return {root(c.b, c.b.reduce("reduce_sum", power_of_magnitude(c.b, c.operand(0), p), spatial_axes(c)), p)};
}

// x / (bias + alpha / size * sum of the squares of `size` neighbouring channels)^beta.
std::vector<Value> import_lrn(NodeContext& c) {
  Builder& b = c.b;
  const Value x = c.operand(0);
  const Shape shape = b.shape(x);
  const int64_t size = c.integer("size");
  const double alpha = c.number("alpha", 1e-4), beta = c.number("beta", 0.75), bias = c.number("bias", 1);
  if (shape.size() < 2 || size < 1 || size > kMostElements)
    c.fail("[N, C, ...] and a size of 1 to " + std::to_string(kMostElements) + " expected, found " + to_string(shape) +
           " and " + std::to_string(size));
  Ints low(shape.size(), 0), high(shape.size(), 0), starts(shape.size(), 0), limits = shape;
  low[1] = (size - 1) / 2, high[1] = size / 2;
  const Value squares = pad_or_crop(b, b.mul(x, x), low, high, 0);
  Value sum;
  for (int64_t i = 0; i < size; ++i) {
    starts[1] = i, limits[1] = i + shape[1];
    const Value term = b.slice(squares, starts, limits);
    sum = sum ? b.add(sum, term) : term;
  }
  const Value scale = b.add(b.mul(sum, alpha / static_cast<double>(size)), bias);
  return {b.div(x, b.binary("pow", scale, b.constant_like(scale, beta)))};
}

const std::vector<OnnxOperator> kRows{
    {"AveragePool", {7}, 1, 1, import_average_pool, "1 to 3 spatial axes"},
    {"GlobalAveragePool", {1}, 1, 1, import_global_average_pool},
    {"GlobalMaxPool", {1}, 1, 1, import_global_max_pool},
    {"GlobalLpPool", {2}, 1, 1, import_global_lp_pool},
    {"LRN", {1}, 1, 1, import_lrn, "size of at most 256"},
    {"LpPool", {2}, 1, 1, import_lp_pool, "1 to 3 spatial axes"},
    {"MaxPool",
     {1},
     1,
     1,
     import_max_pool,
     "1 to 3 spatial axes; windows of at most 256 elements along an axis, or in all where Indices are wanted"},
};

}  // namespace

std::span<const OnnxOperator> pooling_operators() { return kRows; }

}  // namespace halfstep
