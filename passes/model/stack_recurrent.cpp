#include "passes/model/stack_recurrent.h"

#include <algorithm>

#include "ir/builder.h"
#include "ir/recurrent.h"
#include "ir/views.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

class Stacking {
 public:
  explicit Stacking(const Graph& graph) : graph_(graph), users_(graph.users()) {}

  // Whether the node's x is a layer of its kind that nothing else reads.
  bool stands_on_another(const Node& node) const {
    if (!is(node, "recurrent") || node.operands[0].result != 0) return false;
    const NodeId id = node.operands[0].node;
    const Node& below = graph_.node(id);
    if (!is(below, "recurrent") || users_[static_cast<size_t>(id)].size() != 1) return false;
    if (std::ranges::any_of(graph_.outputs(), [&](const NamedValue& o) { return o.value.node == id; })) return false;
    if (std::ranges::any_of(graph_.updates(), [&](const StateUpdate& u) { return u.value.node == id; })) return false;
    if (std::ranges::count(node.operands, id, &Value::node) != 1) return false;
    Attributes attributes = below.attributes;
    attributes.set("layers", node.attributes.integer("layers"));
    return attributes == node.attributes;
  }

 private:
  const Graph& graph_;
  const std::vector<std::vector<NodeId>> users_;
};

// Elements [from, to) of a vector, as what it is joined of where they are whole parts.
void append(Builder& b, Value vector, int64_t from, int64_t to, std::vector<Value>& parts) {
  if (from == to) return;
  const Node made = b.graph().node(vector);
  std::vector<Value> whole;
  int64_t at = 0;
  bool fits = is(made, "concat");
  for (size_t i = 0; fits && i < made.operands.size(); ++i) {
    const int64_t begin = at;
    at += b.type(made.operands[i]).element_count();
    if (begin >= from && at <= to)
      whole.push_back(made.operands[i]);
    else
      fits = at <= from || begin >= to;
  }
  if (fits)
    parts.insert(parts.end(), whole.begin(), whole.end());
  else
    parts.push_back(b.slice(vector, {from}, {to}));
}

Value joined(Builder& b, std::vector<Value> parts) {
  return b.call("concat", std::move(parts), {{"axis", int64_t{0}}});
}

// The states of both; absent where both start at zero.
Value stacked_states(Builder& b, Value below, const RecurrentSizes& lower, Value above, const RecurrentSizes& upper,
                     DType type) {
  if (!below && !above) return {};
  const auto given = [&](Value v, const RecurrentSizes& s) {
    return v ? v : b.broadcast(b.constant(type, 0), {s.layers * s.directions, s.batch, s.hidden});
  };
  return joined(b, {given(below, lower), given(above, upper)});
}

std::vector<Value> stacked(Builder& b, const Node& node, std::span<const Value> operands) {
  const Node below = b.graph().node(operands[0]);
  const RecurrentSizes lower = recurrent_sizes(below.attributes, b.type(below.operands[0])),
                       upper = recurrent_sizes(node.attributes, b.type(operands[0]));
  if (lower.layers + upper.layers > kMostRecurrentLayers) return {};
  const auto matrices = [](const RecurrentSizes& s) { return matrix_offset(s, s.layers, 0, RecurrentPart::input); };
  std::vector<Value> weights;
  append(b, below.operands[1], 0, matrices(lower), weights);
  append(b, operands[1], 0, matrices(upper), weights);
  append(b, below.operands[1], matrices(lower), weight_count(lower), weights);
  append(b, operands[1], matrices(upper), weight_count(upper), weights);
  std::vector<Value> all{below.operands[0], joined(b, std::move(weights))};
  for (size_t i : {2u, 3u}) {
    const Value above = i < operands.size() ? operands[i] : Value{};
    all.push_back(stacked_states(b, optional_operand(below, i), lower, above, upper, b.dtype(operands[0])));
  }
  while (!all.back()) all.pop_back();
  Attributes attributes = node.attributes;
  attributes.set("layers", lower.layers + upper.layers);
  std::vector<Value> results = b.call_all(*node.op, std::move(all), std::move(attributes));
  const int64_t first = lower.layers * lower.directions;
  for (size_t i = 1; i + 1 < results.size(); ++i) {
    const Shape states = b.shape(results[i]);
    results[i] = b.slice(results[i], {first, 0, 0}, states);
  }
  return results;
}

}  // namespace

Graph stack_recurrent(const Graph& graph) {
  const Stacking stacking(graph);
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) {
    return stacking.stands_on_another(node) ? stacked(b, node, operands) : std::vector<Value>();
  });
}

}  // namespace halfstep
