#include "compiler/replay.h"

#include "base/error.h"
#include "compiler/compile.h"
#include "ir/op.h"
#include "program/program.h"

namespace halfstep {
namespace {

double operations_of(const Graph& graph) {
  double sum = 0;
  for (const Node& node : graph.nodes()) {
    std::vector<TensorType> types;
    for (Value v : node.operands) types.push_back(v ? graph.type(v) : TensorType());
    sum += node.op->cost ? node.op->cost(node, types) : static_cast<double>(node.results[0].element_count());
  }
  return sum;
}

Recipe at_batch(const Recipe& recipe, int64_t batch) {
  Recipe result = recipe;
  result.batch = batch;
  for (auto& [input, shape] : result.shapes)
    if (!shape.empty() && shape[0] == recipe.batch) shape[0] = batch;
  return result;
}

bool is_input(const Node& node) { return node.op->name == "input"; }

// A program with the graph's inputs and nothing else: what the feed of training binds a data set to.
Program inputs_of(const Graph& graph) {
  Program program{graph.name(), {}, {}};
  for (const Node& node : graph.nodes())
    if (is_input(node)) program.buffers.push_back({leaf_name(node), BufferKind::input, node.results[0]});
  return program;
}

// The value of a parameter or state in the layout that the graph stores it in.
Tensor stored_value(const Node& leaf, const ModelState& state) {
  const Name name = leaf_name(leaf);
  const FileTensors& tensors = name.is(Role::slot) ? state.slots : state.weights;
  if (const auto found = tensors.find(name.text); found != tensors.end()) {
    const Attribute* permutation = leaf.attributes.find("permutation");
    const Ints axes = permutation ? std::get<Ints>(*permutation) : Ints();
    return axes.empty() ? found->second : found->second.transpose(axes);
  }
  throw InternalError("no value for state '" + to_string(name) + "'");
}

}  // namespace

Replay::Replay(const Recipe& recipe, int64_t batch, const std::string& pass, const std::string& graph) : batch_(batch) {
  const Recipe replayed = at_batch(recipe, batch);
  ImportedModel imported = import_graph(replayed);
  TrainingPipelineOptions options = pipeline_options(replayed, imported);
  options.stop_after = pass;
  const PipelineResult passes = run_training_pipeline(imported.graph, options);
  const Graph* found = passes.find(graph);
  require(found != nullptr, "the pass makes the graph");
  graph_ = *found;
  operations_ = operations_of(graph_);
  onnx_nodes_ = std::move(imported.nodes);
}

InterpretResult Replay::run(const ModelState& state, const Dataset& dataset, const FeedOptions& feed,
                            std::span<const int64_t> samples, const StepInputs& step, const Observer& observe,
                            Rounding rounding) const {
  const Program program = inputs_of(graph_);
  NamedTensors leaves;
  std::vector<std::span<std::byte>> staging;
  for (const Buffer& input : program.buffers)
    staging.emplace_back(leaves.emplace(input.name, Tensor(input.type)).first->second.data);
  DataFeed(dataset, program, feed).fill(samples, step, staging);
  for (const Node& node : graph_.nodes())
    if (is_leaf(*node.op) && !is_input(node)) leaves[leaf_name(node)] = stored_value(node, state);
  return interpret(graph_, leaves, {.rounding = rounding, .observe = observe});
}

}  // namespace halfstep
