#include "passes/training/differentiate.h"

#include "base/error.h"
#include "ir/builder.h"
#include "ir/gradients.h"
#include "passes/rewrite/rules.h"
#include "passes/training/counted_labels.h"
#include "passes/training/tap_values.h"

namespace halfstep {
namespace {

// Batches weigh alike, or as the share of their labels that count: the update then divides by all shares.
Value seed(Builder& b, const Origin& origin, Value counted_share, const DifferentiateOptions& options,
           const LossIndex& loss) {
  OriginScope scope(b, {origin.name, Phase::backward});
  Value seed = b.mul(loss_scale(b, options.scaling, loss), 1.0 / static_cast<double>(options.accumulation));
  if (loss && options.scaling.losses[*loss] != 1) seed = b.mul(seed, options.scaling.losses[*loss]);
  return counted_share ? b.mul(seed, counted_share) : seed;
}

// The outputs that mark_taps marked and whose gradient is on the way to a parameter's.
std::vector<NamedValue> marked_on_the_way(const Graph& graph) {
  std::vector<char> depends(graph.nodes().size());
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    bool reached = is(node, "parameter");
    for (Value v : node.operands)
      reached |= v && depends[static_cast<size_t>(v.node)] && is_floating(graph.type(v).dtype);
    depends[static_cast<size_t>(id)] = reached && is_floating(node.results[0].dtype);
  }
  std::vector<NamedValue> marked;
  for (const NamedValue& o : graph.outputs())
    if (is_tap(o.name) && depends[static_cast<size_t>(o.value.node)]) marked.push_back(o);
  return marked;
}

}  // namespace

Graph differentiate(const Graph& original, const DifferentiateOptions& options) {
  const Graph graph = expand_for_vjp(original);
  const Value loss = graph.output(kLoss);
  require(loss && graph.type(loss) == TensorType{DType::f32, {}}, "a measure 'loss' f32[]");
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b);
  std::vector<Value> parameters;
  for (NodeId id = 0; id < graph.size(); ++id)
    if (is(graph.node(id), "parameter")) parameters.push_back(map({id, 0}));

  std::vector<Value> sources = parameters;
  const std::vector<NamedValue> marked = marked_on_the_way(graph);
  for (const NamedValue& o : marked) sources.push_back(map(o.value));
  const std::vector<LossIndex> losses = backwards(options.scaling);
  require(marked.empty() || !losses.front(), "taps are of one backward");
  std::vector<std::vector<Value>> found;
  for (const LossIndex& index : losses) {
    const Value y = graph.output(of(kLoss, index));
    require(y && graph.type(y) == TensorType{DType::f32, {}}, "a measure f32[] of each loss to differentiate");
    Value share;
    if (const CountedLabels counted = counted_labels(graph, index); counted.total && options.accumulation > 1)
      share = b.mul(map(counted.total), 1.0 / static_cast<double>(counted.samples));
    found.push_back(gradients(b, {.y = map(y),
                                  .cotangent = seed(b, graph.node(y).origin, share, options, index),
                                  .sources = sources,
                                  .y_name = "the loss",
                                  .source_name = "a parameter"}));
  }

  for (const NamedValue& o : graph.outputs()) b.output(o.name, map(o.value));
  for (const StateUpdate& u : graph.updates()) b.update(map(u.state), map(u.value));
  for (size_t k = 0; k < losses.size(); ++k)
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Value v = found[k][i];
      const Value zeros = v ? Value{} : b.broadcast(b.constant(DType::f32, 0), b.shape(parameters[i]));
      b.output(gradient_name(b.graph().node(parameters[i]).attributes.text("name"), losses[k]), v ? v : zeros);
    }
  for (size_t i = 0; i < marked.size(); ++i)
    if (const Value gradient = found.front()[parameters.size() + i]) b.output(gradient_tap(marked[i].name), gradient);
  return std::move(b).finish();
}

}  // namespace halfstep
