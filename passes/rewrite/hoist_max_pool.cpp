#include "passes/rewrite/hoist_max_pool.h"

#include <algorithm>

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

class HoistMaxPool {
 public:
  explicit HoistMaxPool(const Graph& graph) : graph_(graph), uses_(graph.nodes().size(), 0) {
    const auto count = [&](Value v) {
      if (!v) return;
      ++uses_[static_cast<size_t>(v.node)];
      if (v.result > 0) positions_read_ |= is(graph_.node(v), "max_pool");
    };
    for (const Node& node : graph.nodes())
      for (Value v : node.operands) count(v);
    for (const NamedValue& o : graph.outputs()) count(o.value);
    for (const StateUpdate& u : graph.updates()) count(u.value);
  }

  Graph run() {
    if (positions_read_) return graph_;
    return rewrite(graph_, [&](Builder& b, const Node& node, std::span<const Value> operands) {
      if (!is(node, "max_pool")) return std::vector<Value>();
      return pooled(b, node, node.operands[0], operands[0]);
    });
  }

 private:
  // An operand that is the same at all positions: per channel, or per sample.
  static bool constant_in_space(const Graph& graph, Value v) {
    const Node& node = graph.node(v);
    if (!is(node, "broadcast")) return false;
    const Shape& from = graph.type(node.operands[0]).shape;
    for (size_t i = 1; i + 1 < from.size(); ++i)
      if (from[i] != 1) return false;
    return true;
  }

  // The pool of `after`, which stands for the original graph's value `before`.
  std::vector<Value> pooled(Builder& b, const Node& pool, Value before, Value after) {
    const Node original = graph_.node(before), made = b.graph().node(after);
    const bool same = original.op == made.op && uses_[static_cast<size_t>(before.node)] == 1;
    if (same && is(original, "relu")) {
      std::vector<Value> results = pooled(b, pool, original.operands[0], made.operands[0]);
      OriginScope scope(b, original.origin);
      results[0] = b.call_all(*original.op, {results[0]}).front();
      return results;
    }
    if (same && is(original, "add"))
      for (size_t i : {0u, 1u}) {
        const Value shift = made.operands[1 - i];
        if (!constant_in_space(b.graph(), shift)) continue;
        const Value small = b.graph().node(shift).operands[0];
        std::vector<Value> results = pooled(b, pool, original.operands[i], made.operands[i]);
        OriginScope scope(b, original.origin);
        results[0] = b.add(results[0], b.broadcast(small, b.shape(results[0])));
        return results;
      }
    return b.call_all(*pool.op, {after}, pool.attributes);
  }

  const Graph& graph_;
  std::vector<int> uses_;
  bool positions_read_ = false;
};

}  // namespace

Graph hoist_max_pool(const Graph& graph) {
  const bool any = std::ranges::any_of(graph.nodes(), [](const Node& node) { return is(node, "max_pool"); });
  return any ? HoistMaxPool(graph).run() : graph;
}

}  // namespace halfstep
