// Rewriting by rules, for the passes that are algebra: each node is offered to the rules in turn, until none applies.
#pragma once

#include <optional>
#include <span>

#include "ir/builder.h"

namespace halfstep {

// A node about to be copied. `operands` stand in `builder`, `node` in the graph being rewritten.
struct RuleContext {
  Builder& builder;
  const Graph& graph;  // being rewritten
  const Node& node;
  std::span<const Value> operands;

  // The node as it is.
  Value unchanged() const { return {builder.copy(graph, node, operands), 0}; }
  // The node that makes operand `i` in the graph being built.
  const Node& maker(size_t i) const { return builder.graph().node(operands[i]); }
};

// What stands for the node's one result; absent: the rule does not apply.
using Rule = Value (*)(const RuleContext&);

// To a fixed point. Nodes with several results are copied.
Graph apply_rules(const Graph& graph, std::span<const Rule> rules);

inline bool is(const Node& node, std::string_view op) { return node.op->name == op; }
// The one value of all elements, if `v` is a constant scalar, reshaped or broadcast.
std::optional<double> splat(const Graph& graph, Value v);

// Permutations, as in `transpose`: result axis i is axis p[i] of the operand.
Ints compose(const Ints& first, const Ints& then);  // transpose(transpose(x, first), then)
Ints inverse(const Ints& permutation);
bool is_identity(const Ints& permutation);
template <typename T>
std::vector<T> permuted(const std::vector<T>& values, const Ints& permutation) {
  std::vector<T> result;
  for (int64_t axis : permutation) result.push_back(values[static_cast<size_t>(axis)]);
  return result;
}
// Whether transposing `shape` moves only axes of size 1: then it is a reshape.
bool keeps_order(const Shape& shape, const Ints& permutation);
// For each axis of `from` the axes of `to` that it splits into, all of them once; absent if an axis of `to` joins
// several.
using AxisSplit = std::vector<std::vector<size_t>>;
std::optional<AxisSplit> split_axes(const Shape& from, const Shape& to);

// reshape and transpose that take in those they meet; axes that `v` merges are merged after the transpose.
Value reshaped(Builder& builder, Value v, const Shape& shape);
Value permuted_axes(Builder& builder, Value v, const Ints& permutation);

}  // namespace halfstep
