#include "passes/inference.h"

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rules.h"

namespace halfstep {
namespace {

Graph in_inference_form(const Graph& graph) {
  Builder b("evaluate");
  const ValueMap map = copy_nodes(graph, b, [](Builder& builder, const Node& node, std::span<const Value> operands) {
    return node.op->inference ? node.op->inference({builder, node, operands}) : std::vector<Value>();
  });
  for (const NamedValue& o : graph.outputs())
    if (o.name != "loss" && o.name != "correct" && o.name != "counted")
      b.output(o.name, map[static_cast<size_t>(o.value.node)][static_cast<size_t>(o.value.result)]);
  return std::move(b).finish();
}

}  // namespace

Graph inference(const Graph& graph) {
  const Graph evaluated = in_inference_form(graph);
  const auto users = evaluated.users();
  size_t at = 0;
  return rewrite(evaluated, [&](Builder&, const Node& node, std::span<const Value>) {
    const NodeId id = static_cast<NodeId>(at++);
    bool read = !is(node, "input") || !users[static_cast<size_t>(id)].empty();
    for (const NamedValue& o : evaluated.outputs()) read |= o.value.node == id;
    return read ? std::vector<Value>() : std::vector<Value>{Value{}};
  });
}

}  // namespace halfstep
