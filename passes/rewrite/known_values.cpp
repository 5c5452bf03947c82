#include "passes/rewrite/known_values.h"

#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int64_t kLargest = int64_t{1} << 22;       // elements of a value
constexpr int64_t kMostTogether = int64_t{1} << 23;  // of all that are remembered

}  // namespace

const std::vector<double>* KnownValues::of(const Graph& graph, Value v) {
  for (auto id = static_cast<NodeId>(is_known_.size()); id <= v.node; ++id) {
    const Node& node = graph.node(id);
    bool known = (!is_leaf(*node.op) || is(node, "constant")) && node.results.size() == 1 &&
                 node.op->kernel != KernelKind::composite && node.results[0].element_count() <= kLargest;
    for (Value operand : node.operands) known &= operand && is_known_[static_cast<size_t>(operand.node)];
    is_known_.push_back(known);
  }
  if (!is_known_[static_cast<size_t>(v.node)]) return nullptr;
  std::vector<NodeId> open{v.node};
  while (!open.empty()) {
    const NodeId id = open.back();
    const Node& node = graph.node(id);
    bool ready = true;
    for (Value operand : node.operands)
      if (!values_.contains(operand.node)) open.push_back(operand.node), ready = false;
    if (!ready) continue;
    open.pop_back();
    if (values_.contains(id)) continue;
    elements_ += node.results[0].element_count();
    if (elements_ > kMostTogether) return nullptr;
    std::vector<const InterpretedTensor*> operands;
    for (Value operand : node.operands) operands.push_back(&values_.at(operand.node));
    values_.emplace(id, interpret_node(node, operands, Rounding::to_type).front());
  }
  return &values_.at(v.node).values;
}

}  // namespace halfstep
