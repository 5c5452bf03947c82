#include "frontend/constants.h"

#include <set>

namespace halfstep {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 22;

}  // namespace

// Operands have smaller numbers than their node, so that no recursion is needed: a file decides how deep graphs are.
bool ConstantEvaluator::is_constant(Value v) {
  if (!v) return true;
  for (auto id = static_cast<NodeId>(known_.size()); id <= v.node; ++id) {
    const Node& node = builder_.graph().node(id);
    bool known = !is_leaf(*node.op);
    for (const TensorType& type : node.results) known &= type.element_count() <= kMostElements;
    for (Value operand : node.operands) known &= !operand || known_[static_cast<size_t>(operand.node)];
    known_.push_back(known);
  }
  return known_[static_cast<size_t>(v.node)];
}

void ConstantEvaluator::evaluate_node(NodeId id) {
  const Node& node = builder_.graph().node(id);
  std::vector<const InterpretedTensor*> operands;
  for (Value v : node.operands) operands.push_back(v ? &results_.at(v.node)[static_cast<size_t>(v.result)] : nullptr);
  results_.emplace(id, interpret_node(node, operands, Rounding::to_type));
}

std::optional<Tensor> ConstantEvaluator::evaluate(Value v) {
  if (!v || !is_constant(v)) return std::nullopt;
  const Node& wanted = builder_.graph().node(v.node);
  if (wanted.op->name == "constant") return wanted.attributes.tensor("value");  // i64 beyond 2^53 stays exact
  std::set<NodeId> needed;
  std::vector<NodeId> open{v.node};
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    if (results_.contains(id) || !needed.insert(id).second) continue;
    for (Value operand : builder_.graph().node(id).operands)
      if (operand) open.push_back(operand.node);
  }
  for (NodeId id : needed) evaluate_node(id);
  const InterpretedTensor& result = results_.at(v.node)[static_cast<size_t>(v.result)];
  return Tensor::from_values(result.type, result.values);
}

}  // namespace halfstep
