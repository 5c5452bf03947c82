#include "passes/rewrite/expand_composites.h"

#include <algorithm>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep {

Graph expand_composites(const Graph& graph, LibraryCalls calls) {
  const auto is_composite = [&](const Node& node) {
    return node.op->kernel == KernelKind::composite ||
           (node.op->kernel == KernelKind::attention && calls != LibraryCalls::keep) ||
           (node.op->kernel == KernelKind::recurrent && calls == LibraryCalls::expand);
  };
  Graph current = graph;
  // An expansion may itself hold composites.
  while (std::ranges::any_of(current.nodes(), is_composite))
    current = rewrite(current, [&](Builder& b, const Node& node, std::span<const Value> operands) {
      if (!is_composite(node)) return std::vector<Value>();
      require(node.op->expand != nullptr, "a composite has an expansion");
      return node.op->expand({b, node, operands});
    });
  return current;
}

}  // namespace halfstep
