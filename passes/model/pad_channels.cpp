#include "passes/model/pad_channels.h"

#include <algorithm>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/model/pad_classes.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int64_t kColours = 3, kPaddedChannels = 4;

bool is_made_by_a_kernel(const Graph& graph, Value v) {
  while (is_view(graph, graph.node(v))) v = graph.node(v).operands[0];
  return graph.node(v).op->kernel == KernelKind::pointwise || graph.node(v).op->kernel == KernelKind::movement;
}

bool takes_padding(const Graph& graph, const std::vector<std::vector<NodeId>>& users, const Node& node) {
  if (!is(node, "convolution") || node.attributes.integer("groups") != 1) return false;
  const Value image = node.operands[0];
  const TensorType& x = graph.type(image);
  const auto is_image = [&](const NamedValue& o) { return o.value == image; };
  return is_low(x.dtype) && x.shape.back() == kColours && users[static_cast<size_t>(image.node)].size() == 1 &&
         is_made_by_a_kernel(graph, image) && std::ranges::none_of(graph.outputs(), is_image);
}

}  // namespace

Graph pad_channels(const Graph& graph, int64_t alignment) {
  if (alignment <= 1) return graph;
  const std::vector<std::vector<NodeId>> users = graph.users();
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    if (!takes_padding(graph, users, node)) return {};
    std::vector<Value> padded;
    for (const Value v : operands) padded.push_back(extended(b, v, b.shape(v).size() - 1, kPaddedChannels));
    return {b.call("convolution", std::move(padded), node.attributes)};
  });
}

}  // namespace halfstep
