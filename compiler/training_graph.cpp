#include "compiler/training_graph.h"

#include <fmt/format.h>

#include "base/error.h"
#include "compiler/compile.h"
#include "ir/builder.h"

namespace halfstep {
namespace {

// What the model computes, without the measures of evaluation and the inputs that only these read.
Graph model_alone(const Graph& evaluation) {
  std::vector<char> live(static_cast<size_t>(evaluation.size()), 0);
  const auto mark = [&](Value v) {
    if (v) live[static_cast<size_t>(v.node)] = 1;
  };
  for (const NamedValue& output : evaluation.outputs())
    if (output.name.is(Role::model)) mark(output.value);
  Builder b("inference");
  ValueMap map(evaluation);
  for (NodeId id = evaluation.size(); id-- > 0;)
    if (live[static_cast<size_t>(id)])
      for (const Value operand : evaluation.node(id).operands) mark(operand);
  for (NodeId id = 0; id < evaluation.size(); ++id) {
    if (!live[static_cast<size_t>(id)]) continue;
    const Node& node = evaluation.node(id);
    std::vector<Value> operands;
    for (const Value operand : node.operands) operands.push_back(map(operand));
    const NodeId copy = b.copy(evaluation, node, operands);
    for (size_t i = 0; i < node.results.size(); ++i)
      map.at({id, static_cast<int32_t>(i)}) = {copy, static_cast<int32_t>(i)};
  }
  for (const NamedValue& output : evaluation.outputs())
    if (output.name.is(Role::model)) b.output(output.name, map(output.value));
  return std::move(b).finish();
}

}  // namespace

TrainingGraph training_graph(const Recipe& recipe, const FileTensors& weights) {
  if (recipe.accumulation > 1)
    throw Error(
        fmt::format("accumulation {}: a training graph is one step on one batch; leave it out, and give "
                    "a larger batch or add up gradients outside",
                    recipe.accumulation));
  ImportedModel imported = import_for(recipe);
  TrainingGraph result{.step = Graph(),
                       .inference = Graph(),
                       .initial = named(in_onnx_layout(imported.graph, imported.weights)),
                       .remarks = {}};
  for (const auto& [name, tensor] : weights) {
    const auto found = result.initial.find(name);
    if (found == result.initial.end()) throw Error("the checkpoint's tensor '" + name + "' is no weight of the model");
    if (found->second.type != tensor.type)
      throw Error(fmt::format("the checkpoint's tensor '{}' is {}, the model has {}", name, to_string(tensor.type),
                              to_string(found->second.type)));
    found->second = tensor;
  }
  CompileOptions options;
  options.stop_after = std::string(kBeforeFusion);
  options.arenas = TrainingPipelineOptions::taken_apart;
  CompiledTraining compiled = compile_imported(recipe, std::move(imported), DeviceKind::cpu, options);
  result.remarks = compiled.report.remarks;
  const Graph* step = compiled.stopped.find("train");
  require(step != nullptr, "the pipeline makes the graph of the step");
  result.step = *step;
  result.inference = model_alone(*compiled.stopped.find("evaluate"));
  result.initial.merge(compiled.stopped.initial_states);
  return result;
}

}  // namespace halfstep
