#include "cli/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/report.h"
#include "cli/table.h"
#include "compiler/replay.h"
#include "ir/op.h"

namespace halfstep {
namespace {

void add_row(std::vector<TraceRow>& rows, const OnnxNodeIndex& nodes, const Node& node,
             const InterpretedTensor& value) {
  TraceRow row{node.origin.name, nodes.operator_of(node.origin, node.op->name), value.type, 0, 0, 0};
  row.type.shape = nodes.shape_in_file(row.node, row.type.shape);
  row.mean = std::accumulate(value.values.begin(), value.values.end(), 0.0) / static_cast<double>(value.values.size());
  const auto [low, high] = std::ranges::minmax(value.values);
  row.low = low, row.high = high;
  // A node's last value is what it computes.
  const auto known = std::ranges::find(rows, row.node, &TraceRow::node);
  if (known == rows.end())
    rows.push_back(std::move(row));
  else
    *known = std::move(row);
}

// The output whose classes are predicted, and the labels beside it.
struct Classes {
  std::string output, labels;  // "": there are none
};
Classes classes_of(const Recipe& recipe) {
  const auto with = [](const OutputLoss& loss) { return function_of(loss).labels == LossFunction::classes; };
  for (const LossTerm& term : recipe.losses)
    if (with(term.loss)) return {term.loss.output, label_input(term.loss)};
  const OutputLoss loss = one_loss(recipe);
  return recipe.losses.empty() && with(loss) ? Classes{loss.output, label_input(loss)} : Classes{};
}

void predict(const InterpretedTensor& logits, Trace& trace) {
  const auto best = std::ranges::max_element(logits.values);
  double sum = 0;
  for (double v : logits.values) sum += std::exp(v - *best);
  trace.predicted = best - logits.values.begin();
  trace.probability = 1 / sum;
}

}  // namespace

std::optional<Trace> trace_prediction(const Recipe& recipe, const ModelState& state, const Dataset& dataset,
                                      int64_t sample) {
  constexpr double kMostOperations = 1e8;
  if (std::error_code unreadable; !std::filesystem::exists(recipe.model, unreadable)) return std::nullopt;
  const Replay replay(recipe, 1, "split_evaluation", "evaluate");
  if (replay.operations() > kMostOperations) return std::nullopt;
  const OnnxNodeIndex nodes(replay.onnx_nodes());
  const Classes classes = classes_of(recipe);
  Trace trace;
  const auto observe = [&](NodeId id, const std::vector<InterpretedTensor>& results) {
    const Node& node = replay.graph().node(id);
    const InterpretedTensor& value = results[0];
    if (node.op->name == "input" && leaf_name(node) == Name(classes.labels) && value.values.size() == 1)
      trace.label = static_cast<int64_t>(value.values[0]);
    if (node.op->kernel != KernelKind::leaf && node.origin.phase == Phase::forward && !node.origin.name.empty() &&
        !value.values.empty())
      add_row(trace.rows, nodes, node, value);
  };
  const int64_t samples[] = {sample};
  const InterpretResult result = replay.run(state, dataset, {}, samples, {}, observe);
  if (trace.label)
    for (const auto& [name, value] : result.outputs)
      if (name.is(Role::model) && (classes.output.empty() || name.text == classes.output)) predict(value, trace);
  std::ranges::stable_sort(trace.rows, {}, [&](const TraceRow& row) { return nodes.position_of({row.node}); });
  return trace;
}

std::string trace_table(const Trace& trace, size_t columns) {
  Table table({"node", "operator", "shape", "precision", "mean", "least", "largest"});
  for (const TraceRow& row : trace.rows)
    table.add({row.node, row.op, to_string(row.type.shape), std::string(name(row.type.dtype)),
               fmt::format("{:.4f}", row.mean), fmt::format("{:.4f}", row.low), fmt::format("{:.4f}", row.high)});
  std::string text = table.text("  ", columns);
  if (trace.predicted)
    text += fmt::format("  predicted class {} with probability {:.3f}, label {}\n", *trace.predicted, trace.probability,
                        *trace.label);
  return text;
}

nlohmann::json trace_json(const Trace& trace) {
  nlohmann::json layers = nlohmann::json::array();
  for (const TraceRow& row : trace.rows)
    layers.push_back({{"node", row.node},
                      {"operator", row.op},
                      {"shape", row.type.shape},
                      {"precision", name(row.type.dtype)},
                      {"mean", row.mean},
                      {"least", row.low},
                      {"largest", row.high}});
  nlohmann::json json{{"layers", layers}};
  if (trace.predicted)
    json.update({{"predicted", *trace.predicted}, {"probability", trace.probability}, {"label", *trace.label}});
  return json;
}

}  // namespace halfstep
