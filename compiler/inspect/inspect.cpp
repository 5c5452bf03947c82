#include <fmt/format.h>

#include <algorithm>
#include <ranges>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/saturated.h"
#include "compiler/inspect/casts.h"
#include "compiler/inspect/inspection.h"
#include "compiler/inspect/scopes.h"
#include "compiler/inspect/weight_ranges.h"
#include "ir/op.h"
#include "passes/fusion/compute_in_readers.h"
#include "passes/precision/presets.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

using Key = StepCost::Key;
using Names = std::unordered_set<std::string>;
constexpr std::string_view kOptimizer = "optimizer";  // the name that add_update's nodes bear

// Of an origin that passes made of two, "fc + fc_bias", the one that it began with.
std::string first_name(const std::string& origin, const Names& names) {
  if (names.contains(origin)) return origin;
  for (size_t end = origin.find(" + "); end != std::string::npos; end = origin.find(" + ", end + 1))
    if (names.contains(origin.substr(0, end))) return origin.substr(0, end);
  return origin;
}

// A graph's nodes by origin.
std::map<Key, std::vector<NodeId>> by_origin(const Graph& graph, const Names& names) {
  std::map<Key, std::vector<NodeId>> groups;
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    if (node.op->kernel != KernelKind::leaf && !node.origin.name.empty())
      groups[{first_name(node.origin.name, names), node.origin.phase}].push_back(id);
  }
  return groups;
}

bool is_cast(const Graph& graph, const Node& node) {
  return is(node, "cast") && is_cast_type(graph.type(node.operands[0]).dtype) && is_cast_type(node.results[0].dtype);
}

// The node of a group that says what it is.
NodeId main_node(const Graph& graph, const std::vector<NodeId>& group) {
  const auto rank_of = [&](NodeId id) {
    const Node& node = graph.node(id);
    return is_cast(graph, node) ? 5 : rank(*node.op, node.results[0].dtype);
  };
  return *std::ranges::min_element(group, {}, rank_of);
}

std::string slot_name(const Op& op, size_t i) {
  if (op.operands.empty()) return std::to_string(i);
  const OperandSpec& spec = op.operands[std::min(i, op.operands.size() - 1)];
  return spec.arity == OperandSpec::variadic ? fmt::format("{}{}", spec.name, i + 1 - op.operands.size() + 1)
                                             : std::string(spec.name);
}

class Inspector {
 public:
  Inspector(const Recipe& recipe, const CompileOptions& options) : recipe_(recipe), options_(options) {}

  Inspection run() {
    result_.model = recipe_.model, result_.precision = recipe_.precision, result_.policy = recipe_.policy;
    result_.batch = recipe_.batch;
    if (recipe_.precision != "fp32") result_.low = recipe_.precision == "bf16" ? DType::bf16 : DType::f16;
    device_ = choose_device(recipe_);
    result_.machine = machine_of(device_);
    if (recipe_.tf32 && device_ == DeviceKind::cuda) result_.machine.full_rate = result_.machine.low_rate / 2;
    import_model();
    compile_forward();
    // A model need not be one that trains to be looked at.
    Graph step;
    if (options_.purpose == TrainingPipelineOptions::typing) result_.step_unknown = "the model alone was looked at";
    if (result_.step_unknown.empty()) try {
        step = training_step(recipe_);
      } catch (const Error& e) {
        result_.step_unknown = e.what();
      }
    const FusedCalls calls = fused_calls(step);
    StepCost cost = step_cost(calls, result_.machine);
    for (const auto& [key, bytes] : kept_bytes(compute_in_readers(fuse(step)))) {
      for (int64_t* kept : {&cost.nodes[key].kept_bytes, &cost.total.kept_bytes}) *kept = saturated_add(*kept, bytes);
    }
    cost = by_first_name(cost);
    const SourceNames forward_names(forward_, main_nodes(forward_), nullptr);
    const SourceNames step_names(calls.graph, main_nodes(calls.graph), &arenas_);
    add_nodes(cost, forward_names);
    add_later(calls.graph, cost, step_names);
    add_casts({forward_, forward_names, calls, step_names, {}});
    add_totals(calls, cost);
    return std::move(result_);
  }

 private:
  // With what reads the weights, if the file has them.
  void import_model() {
    try {
      Recipe from_file = recipe_;
      from_file.init = "from_file";
      imported_ = import_for(from_file, MissingConstants::refused, ImportOptions::on_demand);
    } catch (const Error&) {
      imported_ = import_graph(recipe_);
      result_.weights_unknown = "the file lacks their data";
    }
    if (result_.low && result_.weights_unknown.empty())
      result_.weights = weight_ranges(imported_, *result_.low, result_.weights_unknown);
    imported_.weight_readers.clear();
    for (const Node& node : imported_.graph.nodes())
      if (is_leaf(*node.op)) result_.file_shapes[node.attributes.text("name")] = shape_in_file(node);
    for (const OnnxNode& node : imported_.nodes)
      if (node.shape) result_.file_shapes.emplace(node.name, *node.shape);
    result_.graph_name = imported_.graph_name;
  }

  CompiledTraining compile(const Recipe& recipe, const std::string& stop_after) const {
    CompileOptions options = options_;
    options.stop_after = stop_after;
    return compile_imported(recipe, imported_, device_, options);
  }

  void compile_forward() {
    CompiledTraining compiled = compile(recipe_, "simplify_forward");
    result_.report = std::move(compiled.report);
    result_.preset = result_.report.preset;
    const AutocastNotes& notes = result_.report.autocast;
    InspectionTotals& t = result_.totals;
    t.forward_cast_bytes = t.forward_cast_bytes_torch = notes.cast_bytes;
    t.least_forward_cast_bytes = notes.least_cast_bytes;
    forward_ = *compiled.stopped.find("forward");
    for (const Node& node : forward_.nodes()) names_.insert(node.origin.name);
    if (!result_.low || find_preset(recipe_.preset).name == "torch") return;
    Recipe torch = recipe_;
    torch.preset = "torch", torch.policy.clear();
    t.forward_cast_bytes_torch = compile(torch, "autocast").report.autocast.cast_bytes;
  }

  Graph training_step(const Recipe& recipe) {
    CompiledTraining compiled = compile(recipe, std::string(kBeforeFusion));
    arenas_ = std::move(compiled.stopped.arenas);
    return *compiled.stopped.find("train");
  }

  std::vector<char> main_nodes(const Graph& graph) const {
    std::vector<char> main(static_cast<size_t>(graph.size()), 0);
    for (const auto& [key, group] : by_origin(graph, names_)) main[static_cast<size_t>(main_node(graph, group))] = 1;
    return main;
  }

  StepCost by_first_name(const StepCost& cost) const {
    StepCost result{{}, cost.total};
    for (const auto& [key, of_node] : cost.nodes) {
      NodeCost& sum = result.nodes[{first_name(key.first, names_), key.second}];
      sum.flops += of_node.flops, sum.low_flops += of_node.low_flops, sum.bytes += of_node.bytes;
      sum.microseconds += of_node.microseconds, sum.kept_bytes = saturated_add(sum.kept_bytes, of_node.kept_bytes);
    }
    return result;
  }

  void add_nodes(const StepCost& cost, const SourceNames& names) {
    const auto groups = by_origin(forward_, names_);
    for (NodeRow& row : by_onnx_node(result_.report)) {
      InspectedNode& node = result_.nodes.emplace_back();
      static_cast<NodeRow&>(node) = std::move(row);
      const std::string& name = *node.origin.name;
      if (node.file_node) {
        const FileNode& file = result_.report.file_nodes[*node.file_node];
        node.module = file.module, node.tensors_read = file.operands, node.tensors_given = file.results;
      }
      if (node.origin.phase == Phase::forward) node.scope = scope_of(name, node.module);
      const Key key(name, node.origin.phase);
      if (const auto group = groups.find(key); group != groups.end() && node.into.empty())
        describe(node, forward_.node(main_node(forward_, group->second)), names);
      if (const auto found = cost.nodes.find(key); found != cost.nodes.end()) node.cost = found->second;
    }
    for (size_t i = 0; i < result_.nodes.size(); ++i)
      if (const InspectedNode& node = result_.nodes[i]; node.into.empty()) row_of_.emplace(*node.origin.name, i);
    add_paths();
    if (std::ranges::all_of(result_.nodes, [](const InspectedNode& node) { return node.scope.empty(); })) add_scopes();
  }

  // Of the only weight that a node reads, itself or moved by a node of the file. A tied one stands in two places.
  void add_scopes() {
    std::unordered_map<std::string_view, int> readers;  // of the weights
    for (const Node& node : forward_.nodes())
      if (node.op->leaf == Leaf::parameter) readers.emplace(node.attributes.text("name"), 0);
    std::unordered_map<std::string_view, std::string_view> moved;  // by the name of the node that moves one
    for (const InspectedNode& node : result_.nodes)
      for (const InspectedValue& operand : node.operands)
        if (const auto weight = readers.find(operand.name); weight != readers.end()) {
          ++weight->second;
          if (node.operands.size() == 1) moved.emplace(*node.origin.name, weight->first);
        }
    std::vector<std::string> weights;
    for (const InspectedNode& node : result_.nodes) {
      std::string& weight = weights.emplace_back();
      for (const InspectedValue& operand : node.operands) {
        const auto passed_on = moved.find(operand.name);
        const auto known = readers.find(passed_on == moved.end() ? operand.name : passed_on->second);
        if (weight.empty() && known != readers.end() && known->second == 1) weight = known->first;
      }
    }
    std::vector<std::string> scopes = scopes_of_weights(weights);
    for (size_t i = 0; i < scopes.size(); ++i)
      if (result_.nodes[i].origin.phase == Phase::forward) result_.nodes[i].scope = std::move(scopes[i]);
  }

  void describe(InspectedNode& row, const Node& node, const SourceNames& names) const {
    for (size_t i = 0; i < node.operands.size(); ++i) {
      Value v = node.operands[i];
      if (!v) continue;
      InspectedValue value{slot_name(*node.op, i), names(v), forward_.type(v), {}};
      value.cast_from = names.cast_from(v);
      row.operands.push_back(std::move(value));
    }
    for (const TensorType& type : *node.results) row.results.push_back({"", "", type, {}});
  }

  // "follows 'b'", as the reason of b may be in its turn.
  static std::string followed(const std::string& reason) {
    const size_t begin = reason.find("follows '"), end = reason.rfind('\'');
    return begin == std::string::npos ? "" : reason.substr(begin + 9, end - begin - 9);
  }

  // The nodes that each node's type comes from, the nearest first; of many the nearest ones and the last.
  void add_paths() {
    constexpr size_t kMostNamed = 32, kNone = SIZE_MAX;
    std::vector<InspectedNode>& nodes = result_.nodes;
    std::vector<size_t> next(nodes.size(), kNone);
    for (size_t i = 0; i < nodes.size(); ++i)
      if (const auto found = row_of_.find(followed(nodes[i].reason)); found != row_of_.end() && found->second != i)
        next[i] = found->second;
    std::vector<size_t> last(nodes.size(), kNone);
    for (size_t i = 0; i < nodes.size(); ++i) {
      std::vector<size_t> way;
      size_t at = i;
      for (; next[at] != kNone && last[at] == kNone && way.size() <= nodes.size(); at = next[at]) way.push_back(at);
      const size_t end = last[at] == kNone ? at : last[at];
      for (size_t passed : way) last[passed] = end;
    }
    for (size_t i = 0; i < nodes.size(); ++i) {
      size_t at = next[i];
      for (; at != kNone && nodes[i].path.size() + 1 < kMostNamed; at = next[at])
        nodes[i].path.push_back(nodes[at].origin.name);
      if (at != kNone) nodes[i].path.push_back(nodes[last[i]].origin.name);
    }
  }

  // Backward and update, by the forward node that each belongs to.
  void add_later(const Graph& step, const StepCost& cost, const SourceNames& names) {
    const auto users = step.users();
    for (const auto& [key, group] : by_origin(step, names_)) {
      if (key.second < Phase::backward) continue;
      InspectedNode row;
      row.origin.name = key.first, row.origin.phase = key.second, row.fate = Fate::added;
      row.op = step.node(main_node(step, group)).op->name;
      const auto forward = row_of_.find(key.first);
      if (forward != row_of_.end()) {
        const InspectedNode& of = result_.nodes[forward->second];
        row.op = of.op, row.scope = of.scope;
        row.reason = "as forward: " + of.reason;
      } else {
        row.reason = key.second == Phase::update ? "weights and their updates are f32" : "differentiated";
        if (key.second == Phase::update) row.op = recipe_.optimizer;
      }
      add_ends(row, step, group, users, names);
      if (const auto found = cost.nodes.find(key); found != cost.nodes.end()) row.cost = found->second;
      (key.second == Phase::update ? result_.update : result_.backward).push_back(std::move(row));
    }
    order_backward();
  }

  // What a group of nodes reads of others, and what others read of it.
  void add_ends(InspectedNode& row, const Graph& step, const std::vector<NodeId>& group,
                const std::vector<std::vector<NodeId>>& users, const SourceNames& names) const {
    const auto inside = [&](NodeId id) { return std::ranges::binary_search(group, id); };
    std::optional<DType> gradient, first;
    bool computes = false;
    for (NodeId id : group) {
      const Node& node = step.node(id);
      computes |= node.op->kernel != KernelKind::movement && !is_cast(step, node) && is_floating(node.results[0].dtype);
      for (Value v : node.operands) {
        if (!v || inside(v.node) || step.node(v).op->leaf == Leaf::constant) continue;
        const TensorType& type = step.type(v);
        InspectedValue value{"", names(v), type, {}};
        if (std::ranges::any_of(row.operands, [&](const InspectedValue& known) {
              return known.name == value.name && known.type == value.type;
            }))
          continue;
        if (is_floating(type.dtype)) {
          if (!first) first = type.dtype;
          if (!gradient && step.node(v).origin.phase == Phase::backward) gradient = type.dtype;
        }
        if (row.operands.size() < kMostEnds) row.operands.push_back(std::move(value));
      }
      for (int32_t r = 0; r < static_cast<int32_t>(node.results.size()); ++r)
        if (row.results.size() < kMostEnds && leaves(step, {id, r}, users[static_cast<size_t>(id)], inside))
          row.results.push_back({"", to_of(step, users[static_cast<size_t>(id)], inside), step.type({id, r}), {}});
    }
    row.operand = gradient.value_or(first.value_or(DType::f32));
    if (computes) row.accumulator = DType::f32;
    row.result = step.node(group.back()).results[0].dtype;
    // What goes on backwards before what goes to the optimizer.
    for (const InspectedValue& result : row.results | std::views::reverse)
      if (is_floating(result.type.dtype) && result.name == kOptimizer) row.result = result.type.dtype;
    for (const InspectedValue& result : row.results | std::views::reverse)
      if (is_floating(result.type.dtype) && result.name != kOptimizer) row.result = result.type.dtype;
  }

  template <typename Inside>
  static bool leaves(const Graph& step, Value v, const std::vector<NodeId>& users, const Inside& inside) {
    if (std::ranges::any_of(step.outputs(), [&](const NamedValue& o) { return o.value == v; }) ||
        std::ranges::any_of(step.updates(), [&](const StateUpdate& u) { return u.value == v; }))
      return true;
    return std::ranges::any_of(users, [&](NodeId user) {
      return !inside(user) && std::ranges::find(step.node(user).operands, v) != step.node(user).operands.end();
    });
  }

  template <typename Inside>
  static std::string to_of(const Graph& step, const std::vector<NodeId>& users, const Inside& inside) {
    for (NodeId user : users)
      if (!inside(user)) return step.node(user).origin.name;
    return "";
  }

  // Backwards, as it is computed.
  void order_backward() {
    std::unordered_map<std::string_view, size_t> at;
    for (size_t i = 0; i < result_.nodes.size(); ++i) at.emplace(*result_.nodes[i].origin.name, i + 1);
    std::ranges::stable_sort(result_.backward, std::greater<>(), [&](const InspectedNode& node) {
      const auto found = at.find(*node.origin.name);
      return found == at.end() ? size_t{0} : found->second;
    });
  }

  void add_casts(CastSources sources) {
    sources.reason = [&](const std::string& name) {
      const auto found = row_of_.find(name);
      return found == row_of_.end() ? std::string() : result_.nodes[found->second].reason;
    };
    result_.casts = inspect_casts(sources, result_.totals.casts_in_kernels);
  }

  void add_totals(const FusedCalls& calls, const StepCost& cost) {
    InspectionTotals& t = result_.totals;
    t.flops = cost.total.flops, t.low_flops = cost.total.low_flops, t.microseconds = cost.total.microseconds;
    t.calls = static_cast<int64_t>(calls.calls.size()), t.bytes = static_cast<int64_t>(cost.total.bytes);
    for (const InspectedCast& cast : result_.casts)
      t.cast_bytes = saturated_add(t.cast_bytes, cast.bytes), t.cast_moved = saturated_add(t.cast_moved, cast.moved);
    t.kept_bytes = cost.total.kept_bytes;
    t.kept_bytes_fp32 = t.kept_bytes, t.microseconds_fp32 = t.microseconds;
    if (!result_.low || !result_.step_unknown.empty()) return;
    Recipe fp32 = recipe_;
    fp32.precision = "fp32";
    const Graph wide = training_step(fp32);
    t.kept_bytes_fp32 = 0;
    for (const auto& [key, bytes] : kept_bytes(compute_in_readers(fuse(wide)))) t.kept_bytes_fp32 += bytes;
    t.microseconds_fp32 = step_cost(fused_calls(wide), result_.machine).total.microseconds;
  }

  static constexpr size_t kMostEnds = 16;

  const Recipe& recipe_;
  const CompileOptions& options_;
  DeviceKind device_ = DeviceKind::cpu;
  ImportedModel imported_;
  Graph forward_;
  Names names_;  // that its nodes bear
  ArenaLayout arenas_;
  std::unordered_map<std::string, size_t> row_of_;  // of the file's nodes that are computed
  Inspection result_;
};

}  // namespace

Inspection inspect(const Recipe& recipe, const CompileOptions& options) { return Inspector(recipe, options).run(); }

}  // namespace halfstep
