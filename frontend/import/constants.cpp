#include "frontend/import/constants.h"

#include "ir/fold.h"
#include "ir/op.h"

namespace halfstep {
namespace {

constexpr int64_t kLargestEvaluated = int64_t{1} << 22;  // elements

struct Spending {
  double bytes = 0, operations = 0;
};

// An interpreter's: every element of a result takes a double and at least one operation.
Spending spending_of(const Graph& graph, const Node& node) {
  Spending s;
  std::vector<TensorType> types;
  for (Value v : node.operands) types.push_back(v ? graph.type(v) : TensorType{DType::f32, {0}});
  for (const TensorType& type : node.results) s.bytes += 8.0 * static_cast<double>(type.element_count());
  s.operations = s.bytes / 8;
  if (node.op->cost) s.operations += node.op->cost(node, types);
  return s;
}

}  // namespace

// Operands have smaller numbers than their node, so that no recursion is needed: a file decides how deep graphs are.
bool ConstantEvaluator::is_constant(Value v) {
  if (!v) return true;
  for (auto id = static_cast<NodeId>(known_.size()); id <= v.node; ++id) {
    const Node& node = builder_.graph().node(id);
    bool known = !is_leaf(*node.op);
    for (const TensorType& type : node.results) known &= type.element_count() <= kLargestEvaluated;
    for (Value operand : node.operands) known &= !operand || known_[static_cast<size_t>(operand.node)];
    known_.push_back(known);
  }
  return known_[static_cast<size_t>(v.node)];
}

std::set<NodeId> ConstantEvaluator::needed_for(Value v) const {
  std::set<NodeId> needed;
  std::vector<NodeId> open{v.node};
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    if (results_.contains(id) || !needed.insert(id).second) continue;
    for (Value operand : builder_.graph().node(id).operands)
      if (operand) open.push_back(operand.node);
  }
  return needed;
}

bool ConstantEvaluator::is_within_budget(const std::set<NodeId>& nodes) const {
  double bytes = bytes_, operations = operations_;
  for (NodeId id : nodes) {
    const Spending s = spending_of(builder_.graph(), builder_.graph().node(id));
    bytes += s.bytes, operations += s.operations;
  }
  return bytes <= static_cast<double>(budget_.folded_bytes) &&
         operations <= static_cast<double>(budget_.folded_operations);
}

std::string ConstantEvaluator::reason(Value v) {
  if (!is_constant(v)) return "it depends on the data";
  if (results_.contains(v.node)) return "it is made of integers beyond 2^53";
  return "evaluating it takes more than all constant expressions may: " + std::to_string(budget_.folded_bytes) +
         " bytes (max_folded_bytes) and " + std::to_string(budget_.folded_operations) +
         " operations (max_folded_operations)";
}

void ConstantEvaluator::evaluate_node(NodeId id) {
  const Node& node = builder_.graph().node(id);
  const Spending s = spending_of(builder_.graph(), node);
  bytes_ += s.bytes, operations_ += s.operations;
  std::vector<const Tensor*> operands;
  for (Value v : node.operands) {
    const std::vector<Tensor>* made = v ? &results_.at(v.node) : nullptr;
    if (made && made->empty()) {
      results_[id] = {};
      return;
    }
    operands.push_back(made ? &(*made)[static_cast<size_t>(v.result)] : nullptr);
  }
  results_[id] = fold_node(node, operands).value_or(std::vector<Tensor>());
}

std::optional<Tensor> ConstantEvaluator::evaluate(Value v) {
  if (!v || !is_constant(v)) return std::nullopt;
  const Node& wanted = builder_.graph().node(v.node);
  if (wanted.op->name == "constant") return wanted.attributes.tensor("value");
  const std::set<NodeId> needed = needed_for(v);
  if (!is_within_budget(needed)) return std::nullopt;
  for (NodeId id : needed) evaluate_node(id);
  const std::vector<Tensor>& results = results_.at(v.node);
  return results.empty() ? std::nullopt : std::optional(results[static_cast<size_t>(v.result)]);
}

}  // namespace halfstep
