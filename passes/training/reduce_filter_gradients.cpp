#include "passes/training/reduce_filter_gradients.h"

#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep {
namespace {

constexpr int64_t kMostProducts = 16;

Ints or_else(const Ints& values, size_t count, int64_t otherwise) {
  return values.empty() ? Ints(count, otherwise) : values;
}

// Calls `visit` for every tap of the window, row-major.
template <typename Visit>
void for_each_tap(const Ints& window, Visit&& visit) {
  Ints tap(window.size(), 0);
  while (true) {
    visit(static_cast<const Ints&>(tap));
    size_t axis = window.size();
    while (axis > 0 && ++tap[axis - 1] == window[axis - 1]) tap[--axis] = 0;
    if (axis == 0) return;
  }
}

// [N, out..., channels]: what one tap reads of so many channels of the padded x.
Value read_by(Builder& b, Value padded, const Node& node, const Shape& dy, const Ints& tap, int64_t channel,
              int64_t channels) {
  const size_t axes = tap.size();
  const Ints strides = or_else(node.attributes.ints("strides"), axes, 1),
             dilations = or_else(node.attributes.ints("dilations"), axes, 1);
  Ints starts{0}, limits{dy[0]}, steps{1};
  for (size_t i = 0; i < axes; ++i) {
    starts.push_back(tap[i] * dilations[i]);
    limits.push_back(starts.back() + (dy[i + 1] - 1) * strides[i] + 1);
    steps.push_back(strides[i]);
  }
  starts.push_back(channel), limits.push_back(channel + channels), steps.push_back(1);
  return b.slice(padded, starts, limits, steps);
}

Value as_reductions(Builder& b, const Node& node, Value x, Value dy) {
  const Ints& window = node.attributes.ints("window");
  const Shape from = b.shape(x), shape = b.shape(dy);
  Ints low(from.size(), 0), high(from.size(), 0), reduced{0};
  for (size_t i = 0; i < window.size(); ++i) {
    low[i + 1] = or_else(node.attributes.ints("pads_begin"), window.size(), 0)[i];
    high[i + 1] = or_else(node.attributes.ints("pads_end"), window.size(), 0)[i];
    reduced.push_back(static_cast<int64_t>(i + 1));
  }
  const Value padded = b.call("pad", {b.cast(x, DType::f32)}, {{"low", low}, {"high", high}});
  const Value cotangent = b.cast(dy, DType::f32);
  // Of a depthwise convolution all channels together, each with its own; of another, each with every one of dy.
  const int64_t together = node.attributes.integer("groups") == 1 ? 1 : from.back();
  std::vector<Value> sums;  // [1, out_channels] each
  for_each_tap(window, [&](const Ints& tap) {
    for (int64_t channel = 0; channel < from.back(); channel += together) {
      const Value read = b.broadcast(read_by(b, padded, node, shape, tap, channel, together), shape);
      sums.push_back(b.reshape(b.call("reduce_sum", {b.mul(cotangent, read)}, {{"axes", reduced}}), {1, shape.back()}));
    }
  });
  const Value rows = b.call("concat", std::move(sums), {{"axis", int64_t{0}}});
  return b.cast(b.reshape(b.transpose(rows, {1, 0}), node.results[0].shape), node.results[0].dtype);
}

}  // namespace

Graph reduce_filter_gradients(const Graph& graph, DepthwiseForm depthwise) {
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    if (node.op->kernel != KernelKind::convolution || node.op->gradient != Gradient::filter) return {};
    const TensorType window{DType::u8, node.attributes.ints("window")};
    const bool is_small = node.attributes.integer("groups") == 1 &&
                          window.element_count() * node.results[0].shape.back() <= kMostProducts;
    if (!is_small && !(depthwise == DepthwiseForm::windows && is_depthwise(graph, node))) return {};
    return {as_reductions(b, node, operands[0], operands[1])};
  });
}

}  // namespace halfstep
