#include "frontend/constants.h"

#include <algorithm>

namespace halfstep {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 24;

}  // namespace

bool ConstantEvaluator::is_constant(Value v) {
  if (!v) return true;
  if (const auto found = known_.find(v.node); found != known_.end()) return found->second;
  const Node& node = builder_.graph().node(v.node);
  bool known = !is_leaf(*node.op);
  for (const TensorType& type : node.results) known &= type.element_count() <= kMostElements;
  for (size_t i = 0; known && i < node.operands.size(); ++i) known = is_constant(node.operands[i]);
  known_[v.node] = known;
  return known;
}

const std::vector<InterpretedTensor>& ConstantEvaluator::results(NodeId id) {
  if (const auto found = results_.find(id); found != results_.end()) return found->second;
  const Node& node = builder_.graph().node(id);
  std::vector<const InterpretedTensor*> operands;
  for (Value v : node.operands) operands.push_back(v ? &results(v.node)[static_cast<size_t>(v.result)] : nullptr);
  return results_.emplace(id, interpret_node(node, operands, Rounding::to_type)).first->second;
}

std::optional<Tensor> ConstantEvaluator::evaluate(Value v) {
  if (!v || !is_constant(v)) return std::nullopt;
  const Node& node = builder_.graph().node(v.node);
  if (node.op->name == "constant") return node.attributes.tensor("value");  // i64 beyond 2^53 stays exact
  const InterpretedTensor& result = results(v.node)[static_cast<size_t>(v.result)];
  return Tensor::from_values(result.type, result.values);
}

}  // namespace halfstep
