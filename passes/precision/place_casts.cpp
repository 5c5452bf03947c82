#include "passes/precision/place_casts.h"

#include <algorithm>

#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

using Context = RuleContext;

// Movement of all operands alike, without indices.
bool moves(const Node& node) {
  return node.op->kernel == KernelKind::movement && !node.operands.empty() &&
         (node.operands.size() == 1 || is(node, "concat"));
}

// What a movement fills in must be a value of the type, too.
bool fills_exactly(const Node& node, DType dtype) {
  const Attribute* value = node.attributes.find("value");
  const double* fill = value ? std::get_if<double>(value) : nullptr;
  return !fill || round_to(dtype, *fill) == *fill;
}

int64_t operand_elements(const Builder& b, const Node& node) {
  int64_t count = 0;
  for (Value v : node.operands) count += b.type(v).element_count();
  return count;
}

bool narrows(DType from, DType to) { return is_floating(from) && is_floating(to) && size_of(to) < size_of(from); }

// cast(move(x)) -> move(cast(x))
Value raise_narrowing(const Context& c) {
  if (!is(c.node, "cast")) return {};
  const DType to = c.node.attributes.dtype("to");
  const Node maker = c.maker(0);
  if (!narrows(c.builder.dtype(c.operands[0]), to) || !moves(maker) || !fills_exactly(maker, to)) return {};
  if (operand_elements(c.builder, maker) > c.node.results[0].element_count()) return {};
  std::vector<Value> narrow;
  for (Value v : maker.operands) narrow.push_back(c.builder.cast(v, to));
  OriginScope scope(c.builder, maker.origin);
  return c.builder.call_all(*maker.op, std::move(narrow), maker.attributes).front();
}

// move(cast(x)) -> cast(move(x)); a broadcast is better done last.
Value sink_widening(const Context& c) {
  if (!moves(c.node) || is(c.node, "broadcast")) return {};
  std::vector<Value> narrow;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const Node& cast = c.maker(i);
    if (!is(cast, "cast")) return {};
    narrow.push_back(cast.operands[0]);
    if (!narrows(c.builder.dtype(c.operands[i]), c.builder.dtype(narrow.back()))) return {};
    if (c.builder.dtype(narrow.back()) != c.builder.dtype(narrow.front())) return {};
  }
  if (!fills_exactly(c.node, c.builder.dtype(narrow.front()))) return {};
  const Value moved = c.builder.call_all(*c.node.op, std::move(narrow), c.node.attributes).front();
  return c.builder.cast(moved, c.node.results[0].dtype);
}

constexpr Rule kRules[] = {raise_narrowing, sink_widening};

}  // namespace

Graph place_casts(const Graph& graph) { return apply_rules(graph, kRules); }

}  // namespace halfstep
