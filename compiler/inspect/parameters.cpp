#include "compiler/inspect/parameters.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "base/printable.h"
#include "compiler/compile.h"
#include "frontend/diagnose/diagnostics.h"
#include "ir/op.h"
#include "passes/training/bind_arenas.h"

namespace halfstep {
namespace {

std::string matching(const std::vector<std::string>& patterns, const std::string& name) {
  const auto found = std::ranges::find_if(
      patterns, [&](const std::string& pattern) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
  return found == patterns.end() ? "" : *found;
}

std::optional<ParameterRow::Values> measured(const Tensor& tensor) {
  const Tensor wide = tensor.cast(DType::f64);
  const std::span<const double> all = wide.as<double>();
  if (all.empty()) return std::nullopt;
  ParameterRow::Values v{.least = all[0], .largest = all[0]};
  double sum = 0, squares = 0;
  for (const double x : all) {
    sum += x;
    v.least = std::min(v.least, x), v.largest = std::max(v.largest, x);
  }
  v.mean = sum / static_cast<double>(all.size());
  for (const double x : all) squares += (x - v.mean) * (x - v.mean);
  v.deviation = std::sqrt(squares / static_cast<double>(all.size()));
  return v;
}

// What reads a leaf, past what only moves it.
void add_readers(const Graph& graph, const std::vector<std::vector<NodeId>>& users, NodeId id,
                 std::vector<std::string>& names) {
  for (const NodeId user : users[static_cast<size_t>(id)]) {
    const Node& node = graph.node(user);
    const std::string& name = node.origin.name;
    if (node.operands.size() == 1 && node.op->kernel == KernelKind::movement && name.empty())
      add_readers(graph, users, user, names);
    else if (!name.empty() && std::ranges::find(names, name) == names.end())
      names.push_back(name);
  }
}

class Report {
 public:
  explicit Report(const Recipe& recipe) : recipe_(recipe), model_(onnx_model_of(recipe)) {}

  ParameterReport run() {
    import_model();
    add_leaves();
    add_others();
    return std::move(result_);
  }

 private:
  void import_model() {
    try {
      imported_ = import_for(recipe_, MissingConstants::zeros, ImportOptions::on_demand);
    } catch (const Error& e) {
      imported_ = import_graph(recipe_);  // an Error that is not about data is one here too
      result_.values_unknown = lines_of(e.what()).front();
    }
    result_.remarks = imported_.remarks;
  }

  void add_leaves() {
    const Graph& graph = imported_.graph;
    const auto users = graph.users();
    const std::map<std::string, double> decays = weight_decays();
    std::set<NodeId> updated;
    for (const StateUpdate& update : graph.updates()) updated.insert(update.state.node);
    for (NodeId id = 0; id < graph.size(); ++id) {
      const Node& node = graph.node(id);
      const bool parameter = node.op->leaf == Leaf::parameter;
      if (!parameter && node.op->leaf != Leaf::state) continue;
      ParameterRow row;
      row.name = node.attributes.text("name");
      if (!known_.insert(row.name).second) continue;
      row.shape = shape_in_file(node), row.count = node.results[0].element_count();
      add_readers(graph, users, id, row.readers);
      row.state = parameter              ? ParameterRow::trained
                  : updated.contains(id) ? ParameterRow::statistic
                                         : ParameterRow::frozen;
      if (row.state == ParameterRow::frozen) {
        const std::string pattern = matching(recipe_.freeze, row.name);
        row.why = pattern.empty() ? "a statistic that the file keeps as it is" : fmt::format("freeze '{}'", pattern);
      } else if (row.state == ParameterRow::statistic) {
        row.why = "of the batches";
      }
      if (const auto decay = decays.find(row.name); decay != decays.end()) row.decayed = decay->second != 0;
      add_start(row);
      result_.rows.push_back(std::move(row));
    }
  }

  // Of each parameter, as the optimizer lays them out; empty where none decays.
  std::map<std::string, double> weight_decays() const {
    const TrainingPipelineOptions options = pipeline_options(recipe_, imported_);
    Graph graph = imported_.graph;
    try {
      graph = attach_loss(graph, options.loss);
    } catch (const Error&) {  // there is no loss yet: no parameter is known to be without one
    }
    const ArenaLayout layout = plan_arenas(graph, arena_order(options.optimizer));
    std::map<std::string, double> decays;
    if (std::ranges::any_of(layout.segments, [](const ArenaSegment& s) { return s.weight_decay != 0; }))
      for (const ArenaSlice& slice : layout.slices) decays[slice.name] = layout.segments[slice.segment].weight_decay;
    return decays;
  }

  void add_start(ParameterRow& row) {
    const auto drawn = imported_.fresh.find(row.name);
    row.starts = drawn != imported_.fresh.end() ? to_string(drawn->second) : "file";
    const auto reader = imported_.weight_readers.find(row.name);
    if (reader == imported_.weight_readers.end()) {
      row.starts = "absent";
      return;
    }
    row.values = measured(reader->second());
  }

  // Floating initializers that are no leaves.
  void add_others() {
    for (const StoredTensor& tensor : floating_initializers(model_)) {
      if (known_.contains(tensor.name)) continue;
      ParameterRow row;
      row.name = tensor.name, row.shape = tensor.shape, row.starts = "file";
      row.count = TensorType{DType::f32, tensor.shape}.element_count();
      row.state = tensor.tied_to.empty() ? ParameterRow::constant : ParameterRow::tied;
      row.why = tensor.tied_to.empty() ? "a table, a number of a formula, or unused: train it with --train"
                                       : fmt::format("repeats '{}'", tensor.tied_to);
      result_.rows.push_back(std::move(row));
    }
  }

  const Recipe& recipe_;
  const OnnxModel model_;
  ImportedModel imported_;
  std::set<std::string> known_;
  ParameterReport result_;
};

}  // namespace

std::string_view name(ParameterRow::State state) {
  constexpr std::array<std::string_view, 5> kNames{"trained", "frozen", "statistic", "constant", "tied"};
  return kNames[static_cast<size_t>(state)];
}

ParameterReport parameter_report(const Recipe& recipe) { return Report(recipe).run(); }

}  // namespace halfstep
