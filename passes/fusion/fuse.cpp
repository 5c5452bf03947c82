#include "passes/fusion/fuse.h"

#include <algorithm>

#include "passes/fusion/fusion.h"

namespace halfstep {
namespace {

// Below it another launch costs more than looking at every operand.
constexpr int64_t kWorthGroups = int64_t{1} << 16;

// An element of a concat looks at every operand's place: many are joined in groups, and these again.
Graph split_wide_concats(const Graph& graph) {
  return rewrite(graph, [](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    if (node.op->index_map != IndexMap::joined || is_arena(node) || operands.size() <= kMostJoined ||
        node.results[0].element_count() < kWorthGroups)
      return {};
    std::vector<Value> pieces(operands.begin(), operands.end());
    while (pieces.size() > kMostJoined) {
      std::vector<Value> joined;
      for (size_t first = 0; first < pieces.size(); first += kMostJoined) {
        const auto begin = pieces.begin() + static_cast<std::ptrdiff_t>(first);
        const auto count = std::min<std::ptrdiff_t>(kMostJoined, pieces.end() - begin);
        joined.push_back(count == 1 ? *begin : b.call_all(*node.op, {begin, begin + count}, node.attributes).front());
      }
      pieces = std::move(joined);
    }
    return b.call_all(*node.op, std::move(pieces), node.attributes);
  });
}

}  // namespace

Graph fuse(const Graph& graph) { return Fusion(split_wide_concats(graph)).build(); }

FusedCalls fused_calls(const Graph& graph) {
  FusedCalls result{split_wide_concats(graph), {}};
  result.calls = Fusion(result.graph).calls();
  return result;
}

}  // namespace halfstep
