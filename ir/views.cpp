#include "ir/views.h"

#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep {

bool is_view(const Graph& graph, const Node& node) {
  const IndexMap map = node.op->index_map;
  if (map == IndexMap::row_major || map == IndexMap::same) return true;
  if (map != IndexMap::part) return false;
  const Shape &from = graph.type(node.operands[0]).shape, &to = node.results[0].shape;
  size_t axis = 0;
  while (axis < to.size() && to[axis] == 1) ++axis;
  for (size_t i = axis + 1; i < to.size(); ++i)
    if (to[i] != from[i]) return false;
  // Kernels and libraries read vectors from where a value begins.
  constexpr int64_t kAlignment = 16;  // bytes
  if (view_offset(graph, node) * size_of(node.results[0].dtype) % kAlignment != 0) return false;
  return axis == to.size() || node.attributes.ints("steps")[axis] == 1;
}

Value after(Builder& builder, Value x, Value event) { return builder.call("after", {x, event}); }

std::vector<Value> awaited(const Graph& graph, const Node& call) {
  std::vector<Value> events;
  for (Value v : call.operands)
    while (v && is_view(graph, graph.node(v))) {
      const Node& view = graph.node(v);
      for (size_t i = 0; i < view.operands.size(); ++i)
        if (view.op->operands[i].dependency == OperandSpec::control) events.push_back(view.operands[i]);
      v = view.operands[0];
    }
  return events;
}

int64_t view_offset(const Graph& graph, const Node& view) {
  if (view.op->index_map != IndexMap::part) return 0;
  const std::vector<int64_t> strides = row_major_strides(graph.type(view.operands[0]).shape);
  const Ints& starts = view.attributes.ints("starts");
  int64_t offset = 0;
  for (size_t i = 0; i < strides.size(); ++i) offset += starts[i] * strides[i];
  return offset;
}

bool is_arena(const Node& node) { return node.op->index_map == IndexMap::joined && node.results[0].shape.size() == 1; }

bool is_library(const Node& node) {
  return node.op->kernel == KernelKind::gemm || node.op->kernel == KernelKind::convolution ||
         node.op->kernel == KernelKind::attention || node.op->kernel == KernelKind::recurrent;
}

bool writes_in_place(const Node& node) { return node.op->index_map == IndexMap::scattered; }

std::optional<ScalarOp> update_combine(const Node& scatter) {
  const std::string& reduction = scatter.attributes.text("reduction");
  if (reduction == "set") return std::nullopt;
  return reduction == "add"   ? ScalarOp::add
         : reduction == "mul" ? ScalarOp::multiply
         : reduction == "min" ? ScalarOp::minimum
                              : ScalarOp::maximum;
}

}  // namespace halfstep
