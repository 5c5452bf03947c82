#include "passes/rewrite/strided_view.h"

#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

StridedView whole(const Graph& graph, Value v) { return {v, 0, row_major_strides(graph.type(v).shape)}; }

// The view of what `node` makes of `operand`, of which `from` is the view.
std::optional<StridedView> seen_through(const Graph& graph, const Node& node, const StridedView& from) {
  StridedView view = from;
  const Shape &before = graph.type(node.operands[0]).shape, &after = node.results[0].shape;
  switch (node.op->index_map) {
    case IndexMap::part: {
      const Ints &starts = node.attributes.ints("starts"), &steps = node.attributes.ints("steps");
      for (size_t i = 0; i < starts.size(); ++i) {
        view.offset += starts[i] * view.strides[i];
        view.strides[i] *= steps[i];
      }
      return view;
    }
    case IndexMap::permuted:
      view.strides = permuted(from.strides, node.attributes.ints("permutation"));
      return view;
    case IndexMap::row_major: {
      const std::optional<AxisSplit> split = split_axes(before, after);
      if (!split) return std::nullopt;
      view.strides.assign(after.size(), 0);
      for (size_t i = 0; i < split->size(); ++i) {
        int64_t stride = from.strides[i];
        for (size_t part = (*split)[i].size(); part-- > 0;) {
          view.strides[(*split)[i][part]] = stride;
          stride *= after[(*split)[i][part]];
        }
      }
      return view;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

StridedView strided_view(const Graph& graph, Value v) {
  std::vector<Value> chain{v};
  const auto looks = [&](const Node& n) {
    return n.op->index_map == IndexMap::part || n.op->index_map == IndexMap::permuted ||
           n.op->index_map == IndexMap::row_major;
  };
  while (looks(graph.node(chain.back()))) chain.push_back(graph.node(chain.back()).operands[0]);
  StridedView view = whole(graph, chain.back());
  while (chain.pop_back(), !chain.empty()) {
    std::optional<StridedView> next = seen_through(graph, graph.node(chain.back()), view);
    view = next ? *std::move(next) : whole(graph, chain.back());
  }
  return view;
}

}  // namespace halfstep
