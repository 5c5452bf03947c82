#include "driver/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "driver/compile.h"
#include "driver/table.h"
#include "ir/interpret.h"
#include "ir/op.h"

namespace halfstep {
namespace {

double operations(const Graph& graph) {
  double sum = 0;
  for (const Node& node : graph.nodes()) {
    std::vector<TensorType> types;
    for (Value v : node.operands) types.push_back(v ? graph.type(v) : TensorType());
    sum += node.op->cost ? node.op->cost(node, types) : static_cast<double>(node.results[0].element_count());
  }
  return sum;
}

Tensor sample_as(const Tensor& array, int64_t sample, const TensorType& type) {
  const int64_t elements = type.element_count();
  Tensor value(type);
  for (int64_t i = 0; i < elements; ++i) value.set(i, array.at(sample * elements + i));
  return value;
}

void softmax_prediction(const InterpretedTensor& logits, Trace& trace) {
  const auto best = std::max_element(logits.values.begin(), logits.values.end());
  double sum = 0;
  for (double v : logits.values) sum += std::exp(v - *best);
  trace.predicted = best - logits.values.begin();
  trace.probability = 1 / sum;
}

}  // namespace

std::optional<Trace> trace_prediction(const Recipe& recipe, const NamedTensors& weights, const Dataset& dataset,
                                      int64_t sample) {
  constexpr double kMostOperations = 1e8;
  Recipe single = recipe;
  single.batch = 1;
  single.init = "absent";
  const ImportedModel imported = import_for(single);
  TrainingPipelineOptions options = pipeline_options(single, imported.graph);
  options.stop_after = "split_evaluation";
  const PipelineResult passes = run_training_pipeline(imported.graph, options);
  const Graph& graph = *passes.find("evaluate");
  if (operations(graph) > kMostOperations) return std::nullopt;
  Trace trace;
  NamedTensors leaves;
  size_t next_array = 0;
  for (const Node& node : graph.nodes()) {
    if (!is_leaf(*node.op)) continue;
    const std::string& name = node.attributes.text("name");
    if (node.op->name == "input") {
      if (next_array >= dataset.arrays.size()) continue;
      const Tensor& array = dataset.arrays[next_array++].values;
      leaves[name] = sample_as(array, sample, node.results[0]);
      if (name == "labels") trace.label = static_cast<int64_t>(leaves[name].at(0));
      continue;
    }
    const auto found = weights.find(name);
    if (found == weights.end()) continue;
    const Attribute* permutation = node.attributes.find("permutation");
    const Ints axes = permutation ? std::get<Ints>(*permutation) : Ints();
    leaves[name] = axes.empty() ? found->second : found->second.transpose(axes);
  }
  std::map<std::string, size_t> row_of;
  const auto observe = [&](NodeId id, const std::vector<InterpretedTensor>& results) {
    const Node& node = graph.node(id);
    const InterpretedTensor& y = results[0];
    if (node.op->kernel == KernelKind::leaf || node.origin.phase != Phase::forward || node.origin.name.empty() ||
        y.values.empty())
      return;
    TraceRow row{node.origin.name, std::string(node.op->name), y.type, 0, 0, 0};
    row.mean = std::accumulate(y.values.begin(), y.values.end(), 0.0) / static_cast<double>(y.values.size());
    row.low = *std::min_element(y.values.begin(), y.values.end()),
    row.high = *std::max_element(y.values.begin(), y.values.end());
    // The first operator of an ONNX node names it, its last value is what the node computes.
    const auto [at, added] = row_of.emplace(row.node, trace.rows.size());
    if (added)
      trace.rows.push_back(row);
    else
      row.op = trace.rows[at->second].op == "cast" ? row.op : trace.rows[at->second].op, trace.rows[at->second] = row;
  };
  const InterpretResult result = interpret(graph, leaves, {.rounding = Rounding::to_type, .observe = observe});
  for (const auto& [name, value] : result.outputs)
    if (name != "row_loss" && name != "row_correct" && is_floating(value.type.dtype)) softmax_prediction(value, trace);
  return trace;
}

std::string trace_table(const Trace& trace) {
  Table table({"node", "operator", "value", "mean", "least", "largest"});
  for (const TraceRow& row : trace.rows)
    table.add({row.node, row.op, to_string(row.type), fmt::format("{:.4f}", row.mean), fmt::format("{:.4f}", row.low),
               fmt::format("{:.4f}", row.high)});
  std::string text = table.text();
  if (trace.predicted)
    text += fmt::format("  predicted class {} with probability {:.3f}{}\n", *trace.predicted, trace.probability,
                        trace.label ? fmt::format(", label {}", *trace.label) : "");
  return text;
}

}  // namespace halfstep
