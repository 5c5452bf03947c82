// Pools over the spatial axes.
#include <algorithm>

#include "frontend/operators.h"
#include "frontend/window.h"

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

std::vector<Value> import_max_pool(NodeContext& c) {
  c.ignore({"storage_order"});  // of the indices
  const Window w = pool_window(c);
  return {to_channels_first(c.b, c.b.call("max_pool", {to_channels_last(c.b, c.operand(0))}, window_attributes(w)))};
}

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

const std::vector<OnnxOperator> kRows{
    {"AveragePool", {7}, 1, 1, import_average_pool, "1 to 3 spatial axes"},
    {"GlobalAveragePool", {1}, 1, 1, import_global_average_pool},
    {"GlobalMaxPool", {1}, 1, 1, import_global_max_pool},
    {"MaxPool", {1}, 1, 1, import_max_pool, "1 to 3 spatial axes; windows of at most 256 elements; no Indices"},
};

}  // namespace

std::span<const OnnxOperator> pooling_operators() { return kRows; }

}  // namespace halfstep
