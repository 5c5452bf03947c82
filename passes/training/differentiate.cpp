#include "passes/training/differentiate.h"

#include "base/error.h"
#include "ir/builder.h"
#include "ir/gradients.h"
#include "passes/rewrite/rules.h"
#include "passes/training/tap_values.h"

namespace halfstep {
namespace {

// Batches weigh alike, or as the share of their labels that count: the update then divides by all shares.
Value seed(Builder& b, const Origin& loss, Value counted_share, const DifferentiateOptions& options) {
  OriginScope scope(b, {loss.name, Phase::backward});
  const Value seed = b.mul(loss_scale(b, options.scaling), 1.0 / static_cast<double>(options.accumulation));
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
  require(loss && graph.type(loss) == TensorType{DType::f32, {}}, "a measure 'loss' f32[] to differentiate");
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b);
  std::vector<Value> parameters;
  for (NodeId id = 0; id < graph.size(); ++id)
    if (is(graph.node(id), "parameter")) parameters.push_back(map({id, 0}));

  std::vector<Value> sources = parameters;
  const std::vector<NamedValue> marked = marked_on_the_way(graph);
  for (const NamedValue& o : marked) sources.push_back(map(o.value));
  Value share;
  if (const Value counted = graph.output(kCounted); counted && options.accumulation > 1)
    share = b.mul(map(counted), 1.0 / static_cast<double>(graph.type(graph.output(kRowCounted)).element_count()));
  const std::vector<Value> found = gradients(b, {.y = map(loss),
                                                 .cotangent = seed(b, graph.node(loss).origin, share, options),
                                                 .sources = sources,
                                                 .y_name = "the loss",
                                                 .source_name = "a parameter"});

  for (const NamedValue& o : graph.outputs()) b.output(o.name, map(o.value));
  for (const StateUpdate& u : graph.updates()) b.update(map(u.state), map(u.value));
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Value zeros = found[i] ? Value{} : b.broadcast(b.constant(DType::f32, 0), b.shape(parameters[i]));
    b.output({Role::gradient, b.graph().node(parameters[i]).attributes.text("name")}, found[i] ? found[i] : zeros);
  }
  for (size_t i = 0; i < marked.size(); ++i)
    if (const Value gradient = found[parameters.size() + i]) b.output(gradient_tap(marked[i].name), gradient);
  return std::move(b).finish();
}

}  // namespace halfstep
