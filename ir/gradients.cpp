#include "ir/gradients.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "ir/op.h"

namespace halfstep {
namespace {

bool needs_expansion(const Op& op) { return !op.vjp && op.expand && op.not_differentiable.empty(); }

class ReverseMode {
 public:
  ReverseMode(Builder& builder, const GradientRequest& request)
      : b_(builder), request_(request), cotangents_(builder.graph()) {
    const NodeId size = request.y.node + 1;
    std::vector<char> is_source(static_cast<size_t>(size));
    for (Value v : request.sources)
      if (v.node < size) is_source[static_cast<size_t>(v.node)] = 1;
    for (NodeId id = 0; id < size; ++id) {
      const Node& node = graph().node(id);
      bool reached = false, weak = node.op->name != "input";
      for (Value v : node.operands) {
        reached |= v && depends_[static_cast<size_t>(v.node)] && is_floating(graph().type(v).dtype);
        weak &= !v || weak_[static_cast<size_t>(v.node)];
      }
      passes_on_.push_back(reached);
      depends_.push_back((reached || is_source[static_cast<size_t>(id)]) && is_floating(node.results[0].dtype));
      // A contraction's vjp wants its cotangent in its own type.
      const KernelKind kind = node.op->kernel;
      weak_.push_back(weak &&
                      (kind == KernelKind::leaf || kind == KernelKind::pointwise || kind == KernelKind::movement));
    }
  }

  std::vector<Value> run() {
    cotangents_.at(request_.y) = request_.cotangent;
    for (NodeId id = request_.y.node + 1; id-- > 0;)
      if (depends_[static_cast<size_t>(id)] && passes_on_[static_cast<size_t>(id)]) propagate(id);
    problems_.throw_if_any();
    std::vector<Value> found;
    for (Value v : request_.sources) found.push_back(v.node <= request_.y.node ? cotangents_(v) : Value{});
    return found;
  }

 private:
  const Graph& graph() const { return b_.graph(); }

  void propagate(NodeId id) {
    const std::span<const Value> cotangents = cotangents_.at(id);
    if (std::ranges::none_of(cotangents, [](Value v) { return static_cast<bool>(v); })) return;
    const Node node = graph().node(id);  // a copy: the vjp's nodes may move the graph's storage
    if (!node.op->vjp) {
      problems_.add(fmt::format("{} '{}' has no gradient and lies between {} and {}: {}", node.op->name,
                                to_string(node.origin), request_.source_name, request_.y_name,
                                node.op->not_differentiable));
      return;
    }
    OriginScope scope(b_, {node.origin.name, Phase::backward});
    std::vector<Value> results;
    for (size_t i = 0; i < node.results.size(); ++i) results.push_back({id, static_cast<int32_t>(i)});
    const std::vector<Value> found = node.op->kernel == KernelKind::pointwise
                                         ? wide_vjp(node, results)
                                         : node.op->vjp({b_, node, node.operands, results, cotangents});
    for (size_t i = 0; i < found.size(); ++i)
      if (found[i] && depends_[static_cast<size_t>(node.operands[i].node)]) accumulate(node.operands[i], found[i]);
  }

  // A pointwise vjp of low values computes in f32 and rounds once, as its op does: a square that it takes on the way
  // may be out of the low type's range, a difference from 1 below its digits.
  std::vector<Value> wide_vjp(const Node& node, const std::vector<Value>& results) {
    const auto wide = [&](std::span<const Value> values) {
      std::vector<Value> cast;
      for (Value v : values) cast.push_back(v && is_low(b_.dtype(v)) ? b_.cast(v, DType::f32) : v);
      return cast;
    };
    std::vector<Value> found =
        node.op->vjp({b_, node, wide(node.operands), wide(results), wide(cotangents_.at(results[0].node))});
    for (size_t i = 0; i < found.size(); ++i)
      if (found[i]) found[i] = narrowed(found[i], b_.dtype(node.operands[i]));
    return found;
  }

  Value narrowed(Value v, DType type) {
    if (b_.dtype(v) == type) return v;
    const Node& node = graph().node(v);
    const bool was_widened = node.op->name == "cast" && b_.dtype(node.operands[0]) == type;
    return was_widened ? node.operands[0] : b_.cast(v, type);
  }

  void accumulate(Value v, Value contribution) {
    contribution = b_.cast(contribution, weak_[static_cast<size_t>(v.node)] ? DType::f32 : b_.dtype(v));
    Value& sum = cotangents_.at(v);
    sum = sum ? b_.add(sum, contribution) : contribution;
  }

  Builder& b_;
  const GradientRequest& request_;
  std::vector<char> depends_;    // on a source
  std::vector<char> passes_on_;  // to an operand that depends on one
  std::vector<char> weak_;       // computed of parameters and constants alone, by ops that take any cotangent type
  ValueMap cotangents_;
  Problems problems_;
};

}  // namespace

Graph expand_for_vjp(const Graph& graph) {
  Graph current = graph;
  while (std::ranges::any_of(current.nodes(), [](const Node& n) { return needs_expansion(*n.op); }))
    current = rewrite(current, [](Builder& b, const Node& node, std::span<const Value> operands) {
      return needs_expansion(*node.op) ? node.op->expand({b, node, operands}) : std::vector<Value>();
    });
  return current;
}

std::vector<Value> gradients(Builder& builder, const GradientRequest& request) {
  return ReverseMode(builder, request).run();
}

std::vector<NodeId> parameters_without_gradient(const Graph& graph) {
  std::vector<char> reached(graph.nodes().size());
  for (const NamedValue& o : graph.outputs()) reached[static_cast<size_t>(o.value.node)] = 1;
  std::vector<NodeId> found;
  for (NodeId id = graph.size(); id-- > 0;) {
    const Node& node = graph.node(id);
    const bool here = reached[static_cast<size_t>(id)] && is_floating(node.results[0].dtype);
    if (node.op->name == "parameter" && !here) found.push_back(id);
    if (!here || node.op->vjp == zero_vjp) continue;
    for (Value v : node.operands)
      if (v) reached[static_cast<size_t>(v.node)] = 1;
  }
  std::ranges::reverse(found);
  return found;
}

}  // namespace halfstep
