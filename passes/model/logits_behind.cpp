#include "passes/model/logits_behind.h"

#include <algorithm>

#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

// The axis that `axis` of the result is of the operand of a movement; absent if there is none.
std::optional<int64_t> axis_before(const Graph& graph, const Node& movement, int64_t axis) {
  if (is(movement, "transpose")) return movement.attributes.ints("permutation")[static_cast<size_t>(axis)];
  if (!is(movement, "reshape")) return std::nullopt;
  const Shape &from = graph.type(movement.operands[0]).shape, &to = movement.results[0].shape;
  const auto after = [](const Shape& shape, int64_t i) {
    return TensorType{DType::u8, {shape.begin() + i + 1, shape.end()}}.element_count();
  };
  for (int64_t i = 0; i < static_cast<int64_t>(from.size()); ++i)
    if (from[static_cast<size_t>(i)] == to[static_cast<size_t>(axis)] && after(from, i) == after(to, axis)) return i;
  return std::nullopt;
}

// [1 - p, p] along the axis, where p is a sigmoid: the softmax of [0, its operand].
Value logits_of_two(Builder& b, const Node& concat, int64_t axis) {
  if (!is(concat, "concat") || concat.operands.size() != 2 || concat.attributes.integer("axis") != axis) return {};
  const Node rest = b.graph().node(concat.operands[0]), sigmoid = b.graph().node(concat.operands[1]);
  if (!is(rest, "sub") || rest.operands[1] != concat.operands[1] || splat(b.graph(), rest.operands[0]) != 1.0 ||
      !is(sigmoid, "sigmoid"))
    return {};
  const Value z = sigmoid.operands[0];
  return b.call("concat", {b.constant_like(z, 0), z}, {{"axis", axis}});
}

}  // namespace

Value operand_behind(Builder& b, Value y, std::span<const std::string_view> functions, std::optional<int64_t> axis) {
  const Node node = b.graph().node(y);
  if (std::ranges::find(functions, node.op->name) != functions.end()) {
    const Attribute* along = node.attributes.find("axis");
    return axis && along && std::get<int64_t>(*along) != *axis ? Value{} : node.operands[0];
  }
  const bool sees_sigmoids = std::ranges::find(functions, "sigmoid") != functions.end();
  if (axis && sees_sigmoids)
    if (const Value two = logits_of_two(b, node, *axis)) return two;
  const bool casts = is(node, "cast") && is_floating(b.dtype(node.operands[0]));
  const bool moves = is(node, "transpose") || is(node, "reshape");
  if (!casts && !moves) return {};
  const std::optional<int64_t> before = casts || !axis ? axis : axis_before(b.graph(), node, *axis);
  if (axis && !before) return {};
  const Value inner = operand_behind(b, node.operands[0], functions, before);
  return inner ? b.call_all(*node.op, {inner}, node.attributes).front() : Value{};
}

}  // namespace halfstep
