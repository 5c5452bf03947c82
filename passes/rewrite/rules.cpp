#include "passes/rewrite/rules.h"

#include <algorithm>

#include "base/error.h"

namespace halfstep {
namespace {

constexpr int kMostRounds = 50;  // far above what terminating rules need

}  // namespace

Graph apply_rules(const Graph& graph, std::span<const Rule> rules) {
  const Graph* current = &graph;
  Graph last;
  for (int round = 0; round < kMostRounds; ++round) {
    bool applied = false;
    Graph next = rewrite(*current, [&](Builder& b, const Node& node, std::span<const Value> operands) {
      if (node.results.size() != 1) return std::vector<Value>();
      const RuleContext context{b, *current, node, operands};
      for (Rule rule : rules)
        if (const Value v = rule(context)) {
          applied = true;
          return std::vector<Value>{v};
        }
      return std::vector<Value>();
    });
    if (!applied) return next;
    last = std::move(next);
    current = &last;
  }
  throw InternalError("rewrite rules do not terminate");
}

std::optional<double> splat(const Graph& graph, Value v) {
  const Node* node = &graph.node(v);
  while (is(*node, "broadcast") || is(*node, "reshape")) node = &graph.node(node->operands[0]);
  if (!is(*node, "constant") || node->results[0].element_count() != 1) return std::nullopt;
  return node->attributes.tensor("value").at(0);
}

Ints compose(const Ints& first, const Ints& then) { return permuted(first, then); }

Ints inverse(const Ints& permutation) {
  Ints result(permutation.size());
  for (size_t i = 0; i < result.size(); ++i) result[static_cast<size_t>(permutation[i])] = static_cast<int64_t>(i);
  return result;
}

bool is_identity(const Ints& permutation) {
  for (size_t i = 0; i < permutation.size(); ++i)
    if (permutation[i] != static_cast<int64_t>(i)) return false;
  return true;
}

bool keeps_order(const Shape& shape, const Ints& permutation) {
  int64_t last = -1;
  for (int64_t axis : permutation) {
    if (shape[static_cast<size_t>(axis)] == 1) continue;
    if (axis < last) return false;
    last = axis;
  }
  return true;
}

std::optional<AxisSplit> split_axes(const Shape& from, const Shape& to) {
  if (from.empty()) return to.empty() ? std::optional(AxisSplit()) : std::nullopt;
  AxisSplit split(from.size());
  size_t at = 0, last = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] == 0) return std::nullopt;
    if (from[i] == 1) continue;
    for (int64_t size = 1; size < from[i]; ++at) {
      if (at == to.size() || to[at] == 0 || from[i] % (size * to[at]) != 0) return std::nullopt;
      size *= to[at];
      split[i].push_back(at);
    }
    last = i;
  }
  for (; at < to.size(); ++at) {
    if (to[at] != 1) return std::nullopt;
    split[last].push_back(at);
  }
  return split;
}

Value reshaped(Builder& builder, Value v, const Shape& shape) {
  while (is(builder.graph().node(v), "reshape")) v = builder.graph().node(v).operands[0];
  return builder.reshape(v, shape);
}

Value permuted_axes(Builder& builder, Value v, const Ints& permutation) {
  const Node node = builder.graph().node(v);
  if (is(node, "transpose"))
    return builder.transpose(node.operands[0], compose(node.attributes.ints("permutation"), permutation));
  if (!is(node, "reshape")) return builder.transpose(v, permutation);
  const Value apart = node.operands[0];
  const Shape from = builder.shape(apart), merged = node.results[0].shape;
  const std::optional<AxisSplit> split = split_axes(merged, from);
  const auto merges = [&](const std::vector<size_t>& axes) {
    return std::ranges::count_if(axes, [&](size_t axis) { return from[axis] != 1; }) > 1;
  };
  if (!split || std::ranges::none_of(*split, merges)) return builder.transpose(v, permutation);
  Ints axes;
  for (int64_t axis : permutation)
    for (size_t part : (*split)[static_cast<size_t>(axis)]) axes.push_back(static_cast<int64_t>(part));
  return builder.reshape(permuted_axes(builder, apart, axes), permuted(merged, permutation));
}

}  // namespace halfstep
