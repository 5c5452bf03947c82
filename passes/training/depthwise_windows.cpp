#include "passes/training/depthwise_windows.h"

#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep {
namespace {

constexpr int64_t kMostTaps = 64, kMostTapsOfOneChannel = 16;

// [C, window..., 1] -> [window..., C], so that neighbouring channels lie side by side.
Value channels_last(Builder& b, Value filter) {
  const Shape shape = b.shape(filter);
  Ints window_first;
  for (size_t i = 1; i + 1 < shape.size(); ++i) window_first.push_back(static_cast<int64_t>(i));
  window_first.push_back(0);
  return b.transpose(b.reshape(filter, Shape(shape.begin(), shape.end() - 1)), window_first);
}

Attributes geometry(const Node& node, const Shape& filter) {
  Attributes attributes;
  for (const auto& [name, value] : node.attributes)
    if (name != "groups" && name != "result") attributes.set(name, value);
  attributes.set("window", Ints(filter.begin() + 1, filter.end() - 1));
  return attributes;
}

// A convolution of one channel: the same as one of that channel once for each filter.
bool is_of_one_channel(const Graph& graph, const Node& node) {
  if (node.op->kernel != KernelKind::convolution || node.op->gradient != Gradient::none) return false;
  const Shape& filter = graph.type(node.operands[1]).shape;
  return node.attributes.integer("groups") == 1 && filter.back() == 1 &&
         TensorType{DType::u8, filter}.element_count() <= kMostTapsOfOneChannel * filter.front();
}

}  // namespace

bool is_depthwise(const Graph& graph, const Node& node) {
  if (node.op->kernel != KernelKind::convolution) return false;
  const Shape& filter = node.op->gradient == Gradient::filter ? node.results[0].shape
                        : node.op->gradient == Gradient::data ? graph.type(node.operands[0]).shape
                                                              : graph.type(node.operands[1]).shape;
  return node.attributes.integer("groups") == filter.front() && filter.back() == 1 &&
         TensorType{DType::u8, filter}.element_count() <= kMostTaps * filter.front();
}

Graph depthwise_windows(const Graph& graph) {
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    const bool of_one_channel = is_of_one_channel(graph, node);
    if ((!is_depthwise(graph, node) && !of_one_channel) || node.op->gradient == Gradient::filter) return {};
    const bool gradient = node.op->gradient == Gradient::data;
    const Value filter = operands[gradient ? 0 : 1];
    Value windowed = operands[gradient ? 1 : 0];
    if (node.results[0].dtype != b.dtype(windowed)) return {};
    if (of_one_channel) {
      Shape shape = b.shape(windowed);
      shape.back() = b.shape(filter).front();
      windowed = b.broadcast(windowed, shape);
    }
    return {b.call(gradient ? "depthwise_data_grad" : "depthwise", {windowed, channels_last(b, filter)},
                   geometry(node, b.shape(filter)))};
  });
}

}  // namespace halfstep
