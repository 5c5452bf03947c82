#include "passes/rewrite/add_epilogues.h"

#include <string>

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

class AddEpilogues {
 public:
  explicit AddEpilogues(const Graph& graph) : graph_(graph), uses_(graph.nodes().size(), 0) {
    const auto count = [&](Value v) {
      if (v) ++uses_[static_cast<size_t>(v.node)];
    };
    for (const Node& node : graph.nodes())
      for (Value v : node.operands) count(v);
    for (const NamedValue& o : graph.outputs()) count(o.value);
    for (const StateUpdate& u : graph.updates()) count(u.value);
  }

  Graph run() {
    return rewrite(graph_, [&](Builder& b, const Node& node, std::span<const Value> operands) {
      if (is(node, "add"))
        for (size_t i : {0u, 1u})
          if (is_free_product(node.operands[i]) && is_bias(node.operands[1 - i]))
            return with_bias(b, node, operands[i], b.graph().node(operands[1 - i]).operands[0]);
      return std::vector<Value>();
    });
  }

 private:
  // A product of two matrices with one reader and nothing added to it yet.
  bool is_free_product(Value v) const {
    const Node& node = graph_.node(v);
    return node.op->kernel == KernelKind::gemm && node.operands.size() == 2 && node.results[0].shape.size() == 2 &&
           node.results[0].dtype != DType::f64 && uses_[static_cast<size_t>(v.node)] == 1;
  }

  // A vector along the last axis, the same for all rows. Constants stay: kernels have the small ones inside.
  bool is_bias(Value v) const {
    const Node& node = graph_.node(v);
    if (!is(node, "broadcast")) return false;
    const TensorType& from = graph_.type(node.operands[0]);
    Value source = node.operands[0];
    while (is(graph_.node(source), "reshape")) source = graph_.node(source).operands[0];
    return !from.shape.empty() && from.shape.back() == node.results[0].shape.back() &&
           from.element_count() == from.shape.back() && graph_.node(source).op->leaf != Leaf::constant;
  }

  std::vector<Value> with_bias(Builder& b, const Node& sum, Value product, Value bias) const {
    const Node made = b.graph().node(product);
    const std::string &of_product = *made.origin.name, &of_sum = *sum.origin.name;
    const bool one_name = of_sum.empty() || of_sum == of_product;
    const OriginScope scope(b, {one_name ? of_product : of_product + " + " + of_sum, made.origin.phase});
    const Value vector = b.reshape(bias, {b.shape(bias).back()});
    return b.call_all(*made.op, {made.operands[0], made.operands[1], vector}, made.attributes);
  }

  const Graph& graph_;
  std::vector<int> uses_;  // of each node's results, by operands, outputs and updates
};

}  // namespace

Graph add_epilogues(const Graph& graph) { return AddEpilogues(graph).run(); }

}  // namespace halfstep
