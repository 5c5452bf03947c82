#include "passes/differentiate.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rules.h"

namespace halfstep {
namespace {

bool needs_expansion(const Op& op) { return !op.vjp && op.expand && op.not_differentiable.empty(); }

Graph expand_for_vjp(const Graph& graph) {
  Graph current = graph;
  while (std::ranges::any_of(current.nodes(), [](const Node& n) { return needs_expansion(*n.op); }))
    current = rewrite(current, [](Builder& b, const Node& node, std::span<const Value> operands) {
      return needs_expansion(*node.op) ? node.op->expand({b, node, operands}) : std::vector<Value>();
    });
  return current;
}

class Differentiation {
 public:
  Differentiation(const Graph& graph, const DifferentiateOptions& options)
      : graph_(graph), options_(options), b_(graph.name()), map_(copy_nodes(graph, b_)) {
    for (const Node& node : graph.nodes()) {
      bool parameters = is(node, "parameter"), weak = !is(node, "input");
      for (Value v : node.operands) {
        parameters |= v && depends_[static_cast<size_t>(v.node)] && is_floating(graph.type(v).dtype);
        weak &= !v || weak_[static_cast<size_t>(v.node)];
      }
      depends_.push_back(parameters && is_floating(node.results[0].dtype));
      // A contraction's vjp wants its cotangent in its own type.
      const KernelKind kind = node.op->kernel;
      weak_.push_back(weak &&
                      (kind == KernelKind::leaf || kind == KernelKind::pointwise || kind == KernelKind::movement));
      cotangents_.emplace_back(node.results.size());
    }
  }

  Graph run() {
    seed();
    for (NodeId id = graph_.size(); id-- > 0;)
      if (depends_[static_cast<size_t>(id)] && !graph_.node(id).operands.empty()) propagate(id);
    problems_.throw_if_any();

    for (const NamedValue& o : graph_.outputs()) b_.output(o.name, mapped(o.value));
    for (const StateUpdate& u : graph_.updates()) b_.update(mapped(u.state), mapped(u.value));
    for (NodeId id = 0; id < graph_.size(); ++id)
      if (is(graph_.node(id), "parameter")) output_gradient(id);
    return std::move(b_).finish();
  }

 private:
  Value mapped(Value v) const { return v ? map_[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)] : Value{}; }
  Value& cotangent(Value v) { return cotangents_[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)]; }

  void seed() {
    const Value loss = graph_.output("loss");
    require(loss && graph_.type(loss) == TensorType{DType::f32, {}}, "an output 'loss' f32[] to differentiate");
    OriginScope scope(b_, {graph_.node(loss).origin.name, Phase::backward});
    cotangent(loss) = b_.mul(loss_scale(b_, options_.scaling), 1.0 / static_cast<double>(options_.accumulation));
  }

  void propagate(NodeId id) {
    const Node& node = graph_.node(id);
    const std::vector<Value>& cotangents = cotangents_[static_cast<size_t>(id)];
    if (std::ranges::none_of(cotangents, [](Value v) { return static_cast<bool>(v); })) return;
    if (!node.op->vjp) {
      problems_.add(fmt::format("{} '{}' has no gradient and lies between a parameter and the loss: {}", node.op->name,
                                to_string(node.origin), node.op->not_differentiable));
      return;
    }
    OriginScope scope(b_, {node.origin.name, Phase::backward});
    std::vector<Value> operands;
    for (Value v : node.operands) operands.push_back(mapped(v));
    const std::vector<Value>& results = map_[static_cast<size_t>(id)];
    const std::vector<Value> found = node.op->vjp({b_, node, operands, results, cotangents});
    for (size_t i = 0; i < found.size(); ++i)
      if (found[i] && depends_[static_cast<size_t>(node.operands[i].node)]) accumulate(node.operands[i], found[i]);
  }

  void accumulate(Value v, Value contribution) {
    contribution = b_.cast(contribution, weak_[static_cast<size_t>(v.node)] ? DType::f32 : graph_.type(v).dtype);
    Value& sum = cotangent(v);
    sum = sum ? b_.add(sum, contribution) : contribution;
  }

  void output_gradient(NodeId id) {
    const Node& parameter = graph_.node(id);
    Value gradient = cotangent({id, 0});
    if (!gradient) gradient = b_.broadcast(b_.constant(DType::f32, 0), parameter.results[0].shape);
    b_.output("gradient/" + parameter.attributes.text("name"), gradient);
  }

  const Graph& graph_;
  const DifferentiateOptions& options_;
  Builder b_;
  const ValueMap map_;
  std::vector<char> depends_;  // on a parameter
  std::vector<char> weak_;     // computed of parameters and constants alone, by ops that take any cotangent type
  std::vector<std::vector<Value>> cotangents_;
  Problems problems_;
};

}  // namespace

Graph differentiate(const Graph& graph, const DifferentiateOptions& options) {
  return Differentiation(expand_for_vjp(graph), options).run();
}

}  // namespace halfstep
