#include "compiler/replay.h"

#include <algorithm>

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

// The value of a parameter or state, as it is stored; nullptr: the step has none.
const Tensor* find_value(const Node& leaf, const ModelState& state) {
  const Name name = leaf_name(leaf);
  const FileTensors& tensors = name.is(Role::slot) ? state.slots : state.weights;
  const auto found = tensors.find(name.text);
  return found == tensors.end() ? nullptr : &found->second;
}

// In the layout that the graph stores it in.
Tensor stored_value(const Node& leaf, const ModelState& state) {
  const Tensor* const value = find_value(leaf, state);
  if (value == nullptr) throw InternalError("no value for state '" + to_string(leaf_name(leaf)) + "'");
  const Attribute* permutation = leaf.attributes.find("permutation");
  const Ints axes = permutation ? std::get<Ints>(*permutation) : Ints();
  return axes.empty() ? *value : value->transpose(axes);
}

// What the measures need, and those outputs of the model and updates whose weights the step has: it has none of a head
// without a loss.
std::vector<char> needed_nodes(const Graph& graph, const ModelState& state) {
  std::vector<char> known(graph.nodes().size(), 1), needed(graph.nodes().size(), 0);
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    known[static_cast<size_t>(id)] = is_leaf(*node.op) ? is_input(node) || find_value(node, state) != nullptr
                                                       : std::ranges::all_of(node.operands, [&](Value v) {
                                                           return !v || known[static_cast<size_t>(v.node)] != 0;
                                                         });
  }
  for (const NamedValue& output : graph.outputs())
    if (!output.name.is(Role::model) || known[static_cast<size_t>(output.value.node)])
      needed[static_cast<size_t>(output.value.node)] = 1;
  for (const StateUpdate& update : graph.updates())
    if (known[static_cast<size_t>(update.value.node)]) needed[static_cast<size_t>(update.value.node)] = 1;
  for (NodeId id = graph.size(); id-- > 0;)
    for (Value operand : graph.node(id).operands)
      if (operand && needed[static_cast<size_t>(id)]) needed[static_cast<size_t>(operand.node)] = 1;
  return needed;
}

}  // namespace

Replay::Replay(const Recipe& recipe, int64_t batch, const std::string& pass, const std::string& graph) : batch_(batch) {
  const Recipe replayed = at_batch(recipe, batch);
  ImportedModel imported =
      import_graph(replayed, graph == "evaluate" ? ImportOptions::running_alone : ImportOptions::of_batches);
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
  const std::vector<char> needed = needed_nodes(graph_, state);
  for (NodeId id = 0; id < graph_.size(); ++id) {
    const Node& node = graph_.node(id);
    if (is_leaf(*node.op) && !is_input(node))
      leaves[leaf_name(node)] = needed[static_cast<size_t>(id)] ? stored_value(node, state) : Tensor(node.results[0]);
  }
  const auto observe_needed = [&](NodeId id, const std::vector<InterpretedTensor>& results) {
    if (observe && needed[static_cast<size_t>(id)]) observe(id, results);
  };
  return interpret(graph_, leaves, {.rounding = rounding, .observe = observe_needed});
}

}  // namespace halfstep
