#include "passes/model/inference.h"

#include <algorithm>
#include <array>

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

// A measure of the whole batch, which may be filled up: evaluation adds up those of its rows.
bool is_of_batch(const Name& name) {
  return std::ranges::any_of(std::array{kLoss, kCorrect, kCounted, kWeighed},
                             [&](const OwnName& own) { return name == own || is_of_a_loss(name, own); });
}

Graph in_inference_form(const Graph& graph) {
  Builder b("evaluate");
  const ValueMap map = copy_nodes(graph, b, [](Builder& builder, const Node& node, std::span<const Value> operands) {
    return node.op->inference ? node.op->inference({builder, node, operands}) : std::vector<Value>();
  });
  for (const NamedValue& o : graph.outputs())
    if (!is_of_batch(o.name)) b.output(o.name, map(o.value));
  return std::move(b).finish();
}

}  // namespace

Graph inference(const Graph& graph) {
  const Graph evaluated = in_inference_form(graph);
  std::vector<char> read(evaluated.nodes().size());
  for (const Node& node : evaluated.nodes())
    for (Value v : node.operands)
      if (v) read[static_cast<size_t>(v.node)] = 1;
  for (const NamedValue& o : evaluated.outputs()) read[static_cast<size_t>(o.value.node)] = 1;
  NodeId at = 0;
  return rewrite(evaluated, [&](Builder&, const Node& node, std::span<const Value>) {
    const bool kept = read[static_cast<size_t>(at++)] || !is(node, "input");
    return kept ? std::vector<Value>() : std::vector<Value>{Value{}};
  });
}

}  // namespace halfstep
