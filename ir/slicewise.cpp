#include "ir/slicewise.h"

#include "ir/builder.h"

namespace halfstep {

std::optional<OperandAxes> slicewise(const Graph& graph, const Node& node, size_t axis) {
  if (node.op->resize) return node.op->resize(node, axis);
  if (node.op->kernel == KernelKind::pointwise) return OperandAxes(node.operands.size(), axis);
  if (!node.op->reads) return std::nullopt;
  std::vector<const TensorType*> types;
  for (Value operand : node.operands) types.push_back(&graph.type(operand));
  const IndexReads reads = node.op->reads({node.attributes, types});
  OperandAxes axes(node.operands.size());
  for (size_t i = 0; i < reads.operands.size(); ++i)
    for (size_t own = 0; own < reads.operands[i].size(); ++own) {
      const AxisRead& read = reads.operands[i][own];
      if (read.axis != axis || read.step == 0) continue;
      // Padded or joined along other axes alone, it has all of this one.
      const bool bounded = read.bounded && types[i]->shape[own] != node.results[0].shape[axis];
      if (read.step != 1 || read.offset != 0 || read.divisor != 1 || bounded) return std::nullopt;
      axes[i] = own;
    }
  return axes;
}

Value joined_flat(Builder& b, const std::vector<Value>& pieces, const Shape& shape) {
  std::vector<Value> flat;
  for (const Value piece : pieces) flat.push_back(b.reshape(piece, {b.type(piece).element_count()}));
  return b.reshape(b.call("concat", std::move(flat), {{"axis", int64_t{0}}}), shape);
}

}  // namespace halfstep
