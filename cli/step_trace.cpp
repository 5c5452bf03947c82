#include "cli/step_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "cli/inspect_report.h"
#include "cli/report.h"
#include "cli/table.h"
#include "compiler/inspect/inspection_json.h"
#include "compiler/precision_rows.h"
#include "compiler/replay.h"
#include "ir/op.h"
#include "training/run_setup.h"

namespace halfstep {
namespace {

using Json = nlohmann::json;

// Gathers what each row of the report gave, and what its backward handed on.
class Layers {
 public:
  explicit Layers(const std::vector<InspectedNode>& rows) {
    for (const InspectedNode& row : rows)
      if (row.typed) places_.emplace(row.origin.name, rows_.size()), rows_.push_back({row.origin.name, row.op});
    seen_.resize(rows_.size()), counted_.resize(rows_.size());
  }

  // A node's last value is what it computes; the loss's is the measure.
  void see_result(const Graph& graph, NodeId id, const InterpretedTensor& value) {
    const Node& node = graph.node(id);
    if (node.op->kernel == KernelKind::leaf || value.values.empty()) return;
    if (node.origin.phase == Phase::loss && !is_a_loss(graph, id)) return;
    LayerRun* row = row_of(node);
    if (row == nullptr) return;
    row->type = value.type, row->least = row->largest = value.values.front();
    row->nans = row->infinities = 0;
    for (const double v : value.values) {
      if (precedes(v, row->least)) row->least = v;
      if (precedes(-v, -row->largest)) row->largest = v;
      count(*row, v);
    }
    row->mean =
        std::accumulate(value.values.begin(), value.values.end(), 0.0) / static_cast<double>(value.values.size());
    seen_[static_cast<size_t>(row - rows_.data())] = 1;
  }

  void see_gradient(const Node& node, const InterpretedTensor& value) {
    if (node.op->kernel == KernelKind::leaf || node.origin.phase != Phase::backward || !is_floating(value.type.dtype) ||
        value.values.empty())
      return;
    LayerRun* row = row_of(node);
    if (row == nullptr) return;
    double largest = row->gradient.value_or(0);
    int64_t zeros = 0;
    for (const double v : value.values) {
      if (precedes(-std::abs(v), -largest)) largest = std::abs(v);
      zeros += v == 0;
      count(*row, v);
    }
    auto& [all, of_all] = counted_[static_cast<size_t>(row - rows_.data())];
    all += static_cast<double>(value.values.size()), of_all += static_cast<double>(zeros);
    row->gradient = largest, row->zeros = of_all / all;
  }

  std::vector<LayerRun> rows() && {
    std::vector<LayerRun> seen;
    for (size_t i = 0; i < rows_.size(); ++i)
      if (seen_[i]) seen.push_back(std::move(rows_[i]));
    return seen;
  }

 private:
  LayerRun* row_of(const Node& node) {
    const auto found = places_.find(node.origin.name);
    return found == places_.end() ? nullptr : &rows_[found->second];
  }
  // The lesser, and NaN before all: once there, it stays.
  static bool precedes(double a, double b) { return !std::isnan(b) && (std::isnan(a) || a < b); }
  static void count(LayerRun& row, double value) { row.nans += std::isnan(value), row.infinities += std::isinf(value); }
  static bool is_a_loss(const Graph& graph, NodeId id) {
    return std::ranges::any_of(graph.outputs(), [&](const NamedValue& o) {
      return o.value.node == id && (o.name == kLoss || is_of_a_loss(o.name, kLoss));
    });
  }

  std::vector<LayerRun> rows_;
  std::map<std::string, size_t> places_;
  std::vector<char> seen_;
  std::vector<std::pair<double, double>> counted_;  // elements of gradients, and zeros among them
};

void run_first_samples(const Recipe& recipe, Executor& executor, const Dataset& dataset, StepTrace& trace) {
  constexpr double kMostOperations = 1e9;  // a second or two of interpretation
  constexpr int64_t kMostSamples = 8;
  trace.samples = std::min(kMostSamples, recipe.batch);
  // As the file has its nodes, and the backward, before which some change places.
  const Replay forward(recipe, trace.samples, "split_evaluation", "train"),
      training(recipe, trace.samples, "differentiate", "train");
  if (const double operations = forward.operations() + training.operations(); operations > kMostOperations) {
    trace.run_unknown = fmt::format("{} samples are {:.1e} operations, too many for the interpreter ({:.0e})",
                                    trace.samples, operations, kMostOperations);
    return;
  }
  const FeedOptions feed = feed_options(recipe, executor.model());
  const DataFeed order(dataset, *executor.model().find("train"), feed);
  const std::vector<int64_t> samples = order.order(SampleOrder::as_stored, 0, 0);
  const std::span<const int64_t> first =
      std::span(samples).first(std::min(samples.size(), static_cast<size_t>(trace.samples)));
  const ModelState state = read_model_state(executor);
  const StepInputs step{.seed = static_cast<uint64_t>(recipe.seed)};
  Layers layers(trace.inspection.nodes);
  forward.run(state, dataset, feed, first, step, [&](NodeId id, const std::vector<InterpretedTensor>& results) {
    layers.see_result(forward.graph(), id, results[0]);
  });
  training.run(state, dataset, feed, first, step, [&](NodeId id, const std::vector<InterpretedTensor>& results) {
    layers.see_gradient(training.graph().node(id), results[0]);
  });
  trace.run = std::move(layers).rows();
  const OnnxNodeIndex nodes(forward.onnx_nodes());
  for (LayerRun& row : trace.run) row.type.shape = nodes.shape_in_file(row.node, row.type.shape);
}

double first_loss_scale(const Recipe& recipe, Executor& executor) {
  if (has_loss_scale(executor.model())) return read_grad_scalers(executor).begin()->second.scale;
  return recipe.loss_scale == "fixed" ? recipe.initial_scale : 1;
}

// As the file has it, whatever the axes' order in the graph.
const Shape& shape_in_file(const Inspection& inspection, const std::string& name, const Shape& otherwise) {
  const auto known = inspection.file_shapes.find(name);
  return known == inspection.file_shapes.end() ? otherwise : known->second;
}

std::string shape_text(const Inspection& inspection, const InspectedNode& node) {
  return node.results.empty() ? "-"
                              : to_string(shape_in_file(inspection, node.origin.name, node.results.front().type.shape));
}

std::string operands_text(const Inspection& inspection, const InspectedNode& node) {
  std::string text;
  for (const InspectedValue& v : node.operands)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", v.name,
                        to_string(shape_in_file(inspection, v.name, v.type.shape)));
  return text.empty() ? "-" : text;
}

std::string imported_table(const Inspection& inspection, size_t columns) {
  Table table({"node", "operator", "reads", "shape"});
  for (const InspectedNode& node : inspection.nodes)
    if (node.fate != Fate::constant)
      table.add({node.origin.name, node.op, node.typed ? operands_text(inspection, node) : node.reason,
                 shape_text(inspection, node)});
  return table.text("  ", columns);
}

std::string run_table(const StepTrace& trace, size_t columns) {
  if (!trace.run_unknown.empty()) return "  not run: " + trace.run_unknown + "\n";
  const bool finite = std::ranges::all_of(trace.run, [](const LayerRun& r) { return r.nans + r.infinities == 0; });
  std::vector<std::string> header{"node",    "operator", "shape",      "type",   "least",
                                  "largest", "mean",     "|gradient|", "0 of it"};
  if (!finite) header.emplace_back("NaN, inf");
  Table table(header);
  for (const LayerRun& row : trace.run) {
    std::vector<std::string> cells{row.node,
                                   row.op,
                                   to_string(row.type.shape),
                                   std::string(name(row.type.dtype)),
                                   fmt::format("{:.4g}", row.least),
                                   fmt::format("{:.4g}", row.largest),
                                   fmt::format("{:.4g}", row.mean),
                                   row.gradient ? fmt::format("{:.3g}", *row.gradient) : "-",
                                   row.zeros ? fmt::format("{:.1f} %", 100 * *row.zeros) : "-"};
    if (!finite) cells.push_back(fmt::format("{}, {}", row.nans, row.infinities));
    table.add(std::move(cells));
  }
  return table.text("  ", columns);
}

std::string compile_text(const StepTrace& trace, size_t columns) {
  Table table({"call", "computes"});
  for (const StepTrace::Call& call : trace.calls) table.add({call.call, call.computes});
  return (trace.compiled.empty() ? "" : "  " + trace.compiled) + table.text("  ", columns);
}

}  // namespace

StepTrace trace_step(const Recipe& recipe, Executor& executor, const CompileReport* compiled, const Dataset& dataset) {
  if (std::error_code unreadable; !std::filesystem::exists(recipe.model, unreadable))
    throw Error("'" + recipe.model + "' is not there, so that there is nothing to trace: leave --trace out");
  StepTrace trace;
  trace.inspection = inspect(recipe, {});
  if (compiled) trace.compiled = compile_summary(*compiled);
  for (const Step& step : executor.model().find("train")->steps)
    trace.calls.push_back({describe(step), step.origin.empty() ? "-" : step.origin});
  trace.loss_scale = first_loss_scale(recipe, executor);
  run_first_samples(recipe, executor, dataset, trace);
  return trace;
}

std::string step_trace_text(const StepTrace& trace, size_t columns) {
  const Inspection& i = trace.inspection;
  std::vector<NodeRow> rows(i.nodes.begin(), i.nodes.end());
  std::erase_if(rows, [](const NodeRow& row) { return row.fate == Fate::constant; });
  std::string text = "\ntrace 1 of 5, import: the file's nodes, what they read, the shapes they give\n";
  text += imported_table(i, columns);
  text += fmt::format("\ntrace 2 of 5, autocast: {}, preset {}; {}\n", i.precision, i.preset, precision_summary(rows));
  text += precision_table(rows, columns);
  text +=
      fmt::format("\ntrace 3 of 5, casts, loss scale and backward: the first step's scale is {:g}\n", trace.loss_scale);
  InspectOptions tables;
  tables.only = {"casts", "backward"};
  text += inspection_text(i, tables, columns);
  text += fmt::format("\ntrace 4 of 5, compile: {} calls of the training step\n", trace.calls.size());
  text += compile_text(trace, columns);
  text += fmt::format(
      "\ntrace 5 of 5, run: the first {} samples in these types, with the weights that training begins from; gradients "
      "are "
      "multiplied by the loss scale\n",
      trace.samples);
  return text + run_table(trace, columns);
}

Json step_trace_json(const StepTrace& trace) {
  Json calls = Json::array(), run = Json::array();
  for (const StepTrace::Call& call : trace.calls) calls.push_back({{"call", call.call}, {"computes", call.computes}});
  for (const LayerRun& row : trace.run) {
    run.push_back({{"node", row.node},
                   {"operator", row.op},
                   {"shape", row.type.shape},
                   {"type", name(row.type.dtype)},
                   {"least", row.least},
                   {"largest", row.largest},
                   {"mean", row.mean},
                   {"nans", row.nans},
                   {"infinities", row.infinities}});
    if (row.gradient) run.back()["gradient"] = *row.gradient, run.back()["gradient_zeros"] = *row.zeros;
  }
  Json json{{"inspection", inspection_json(trace.inspection)},
            {"loss_scale", trace.loss_scale},
            {"calls", calls},
            {"samples", trace.samples},
            {"run", run}};
  if (!trace.run_unknown.empty()) json["run_unknown"] = trace.run_unknown;
  return json;
}

}  // namespace halfstep
