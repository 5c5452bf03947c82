#include "passes/autocast.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/rules.h"

namespace halfstep {
namespace {

bool is_operator(const std::string& pattern) {
  return std::ranges::any_of(
      all_ops(), [&](const Op* op) { return op->name == pattern || (!op->onnx.empty() && op->onnx == pattern); });
}

bool applies(const PrecisionRule& rule, const Node& node) {
  return rule.pattern == node.op->name || (!node.op->onnx.empty() && rule.pattern == node.op->onnx) ||
         (!node.origin.name.empty() && fnmatch(rule.pattern.c_str(), node.origin.name.c_str(), 0) == 0);
}

void check_patterns(const Graph& graph, const std::vector<PrecisionRule>& rules) {
  Problems problems;
  for (const PrecisionRule& rule : rules) {
    if (is_operator(rule.pattern)) continue;
    if (std::ranges::any_of(graph.nodes(), [&](const Node& n) { return applies(rule, n); })) continue;
    std::vector<std::string> known;
    for (const Op* op : all_ops()) known.push_back(std::string(op->onnx.empty() ? op->name : op->onnx));
    for (const Node& node : graph.nodes()) known.push_back(node.origin.name);
    const std::string suggestion = nearest(rule.pattern, known);
    problems.add(fmt::format("autocast: {} '{}' is no operator and matches no node of the model{}", rule.source,
                             rule.pattern, suggestion.empty() ? "" : fmt::format("; did you mean '{}'?", suggestion)));
  }
  problems.throw_if_any();
}

// The types autocast chooses between.
bool is_castable(DType type) { return type == DType::f32 || is_low(type); }

const OperandSpec& spec_of(const Op& op, size_t operand) {
  return op.operands[std::min(operand, op.operands.size() - 1)];
}

struct Assignment {
  Precision precision = Precision::follow;
  std::string source;  // the rule that decided; "" for the row
};

// What the readers of a value want it to be.
enum class Demand : uint8_t { none, low, full };

class Autocast {
 public:
  Autocast(const Graph& graph, const AutocastOptions& options, AutocastReport* report)
      : graph_(graph), low_(options.low), report_(report) {
    check_patterns(graph, options.rules);
    for (const Node& node : graph.nodes()) {
      Assignment a{node.op->precision, ""};
      for (const PrecisionRule& rule : options.rules)
        if (applies(rule, node))
          a = {rule.precision,
               is_operator(rule.pattern) ? rule.source : fmt::format("{}: pattern '{}'", rule.source, rule.pattern)};
      assignments_.push_back(std::move(a));
    }
    find_weak();
    find_demands();
  }

  Graph run() {
    size_t at = 0;
    return rewrite(graph_, [&](Builder& b, const Node& node, std::span<const Value> operands) {
      const NodeId id = static_cast<NodeId>(at++);
      if (is_leaf(*node.op) || node.op->operands.empty()) return std::vector<Value>();
      std::string reason = low_ ? "" : "autocast is off";
      std::vector<Value> cast =
          low_ ? cast_operands(b, id, operands, reason) : std::vector<Value>(operands.begin(), operands.end());
      std::vector<Value> results = b.call_all(*node.op, cast, node.attributes);
      if (report_ && !weak_[static_cast<size_t>(id)])
        report_->push_back(row(b, node, cast, results, std::move(reason)));
      return results;
    });
  }

 private:
  // Weak values depend on no input: parameters, constants and what is computed of them alone.
  void find_weak() {
    for (const Node& node : graph_.nodes()) {
      bool weak = !is(node, "input");
      for (Value v : node.operands) weak &= !v || is_weak(v);
      weak_.push_back(weak);
    }
  }

  void find_demands() {
    for (const Node& node : graph_.nodes()) demands_.emplace_back(node.results.size(), Demand::none);
    for (const StateUpdate& u : graph_.updates()) demand_of(u.value) = Demand::full;
    for (NodeId id = graph_.size(); id-- > 0;) {
      const Node& node = graph_.node(id);
      for (size_t i = 0; i < node.operands.size(); ++i)
        if (node.operands[i]) {
          Demand& demand = demand_of(node.operands[i]);
          demand = std::max(demand, demand_on_operand(id, i));
        }
    }
  }

  Demand demand_on_operand(NodeId id, size_t operand) const {
    const Node& node = graph_.node(id);
    if (spec_of(*node.op, operand).cast == OperandSpec::keep) return Demand::full;
    switch (assignments_[static_cast<size_t>(id)].precision) {
      case Precision::low:
        return Demand::low;
      case Precision::full:
        return Demand::full;
      default:
        return *std::ranges::max_element(demands_[static_cast<size_t>(id)]);
    }
  }

  Demand& demand_of(Value v) { return demands_[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)]; }
  bool is_weak(Value v) const { return weak_[static_cast<size_t>(v.node)]; }

  // Whether the low type turns the constant behind `v` into infinity.
  bool overflows_low(const Builder& b, Value v) const {
    const std::optional<double> value = splat(b.graph(), v);
    return value && std::isfinite(*value) && !std::isfinite(round_to(*low_, *value));
  }

  // The operands that the node's class may cast, by index.
  std::vector<size_t> castable(const Builder& b, const Node& node, std::span<const Value> operands) const {
    std::vector<size_t> result;
    for (size_t i = 0; i < operands.size(); ++i)
      if (operands[i] && spec_of(*node.op, i).cast == OperandSpec::castable && is_castable(b.dtype(operands[i])))
        result.push_back(i);
    return result;
  }

  std::vector<Value> cast_operands(Builder& b, NodeId id, std::span<const Value> operands, std::string& reason) {
    const Node& node = graph_.node(id);
    const Assignment& assignment = assignments_[static_cast<size_t>(id)];
    std::vector<Value> result(operands.begin(), operands.end());
    const std::vector<size_t> indices = castable(b, node, operands);
    if (indices.empty()) {
      reason = "keeps its types";
      return result;
    }
    const DType type = operand_type(b, id, operands, indices, reason);
    if (!assignment.source.empty()) reason = assignment.source + ": " + reason;
    for (size_t i : indices) result[i] = b.cast(operands[i], type);
    return result;
  }

  // The one type for the castable operands, and why.
  DType operand_type(const Builder& b, NodeId id, std::span<const Value> operands, const std::vector<size_t>& indices,
                     std::string& reason) const {
    const Node& node = graph_.node(id);
    const std::string low_name(name(*low_));
    switch (assignments_[static_cast<size_t>(id)].precision) {
      case Precision::low:
        reason = node.op->precision != Precision::low       ? low_name
                 : node.op->kernel == KernelKind::composite ? "contractions, f32 between them"
                                                            : "contraction";
        return *low_;
      case Precision::full:
        reason = "needs f32";
        return DType::f32;
      case Precision::full_inside: {
        // A sum can leave the range of what it sums; narrowing waits for the reader.
        const bool wants_low = demands_[static_cast<size_t>(id)].front() == Demand::low;
        const bool keeps_range = node.op->kernel != KernelKind::reduction;
        const DType met = met_type(b, node, operands, indices).type;
        if (is_low(met) && wants_low && keeps_range) {
          reason = "computes in f32 inside, its readers take " + low_name;
          return met;
        }
        reason = "computes in f32 inside";
        return DType::f32;
      }
      case Precision::widest:
      case Precision::follow: {
        const auto [type, from] = met_type(b, node, operands, indices);
        reason = from.empty() ? "follows its operands" : fmt::format("follows '{}'", from);
        return type;
      }
    }
    throw InternalError("unknown precision class");
  }

  struct Met {
    DType type;
    std::string from;  // the node that decided, "" if unnamed
  };

  // The type the operands promote to: the strong ones decide, the widest of them; weak ones join.
  Met met_type(const Builder& b, const Node& node, std::span<const Value> operands,
               const std::vector<size_t>& indices) const {
    std::optional<Met> met;
    const auto join = [&](size_t i) {
      const DType type = b.dtype(operands[i]);
      if (!met || (type != met->type && !(met->type == DType::f32)))
        met = Met{met ? DType::f32 : type, graph_.node(node.operands[i]).origin.name};
    };
    for (size_t i : indices)
      if (!is_weak(node.operands[i]) || overflows_low(b, operands[i])) join(i);
    if (!met)
      for (size_t i : indices) join(i);
    return *met;
  }

  static PrecisionRow row(const Builder& b, const Node& node, std::span<const Value> operands,
                          std::span<const Value> results, std::string reason) {
    DType read = DType::f32;
    for (size_t i = operands.size(); i-- > 0;)
      if (operands[i] && (spec_of(*node.op, i).cast == OperandSpec::castable || i == 0)) read = b.dtype(operands[i]);
    const DType written = b.dtype(results.front());
    const bool computes = node.op->kernel != KernelKind::movement && is_floating(read);
    const DType inside = read == DType::f64 ? DType::f64 : DType::f32;
    return {node.origin, std::string(node.op->name), read, computes ? std::optional(inside) : std::nullopt,
            written,     std::move(reason)};
  }

  const Graph& graph_;
  const std::optional<DType> low_;
  AutocastReport* report_;
  std::vector<Assignment> assignments_;
  std::vector<char> weak_;
  std::vector<std::vector<Demand>> demands_;
};

}  // namespace

PrecisionRule allow_rule(std::string pattern) { return {std::move(pattern), Precision::low, "allow list"}; }
PrecisionRule deny_rule(std::string pattern) { return {std::move(pattern), Precision::full, "deny list"}; }
PrecisionRule infer_rule(std::string pattern) { return {std::move(pattern), Precision::follow, "infer list"}; }

std::vector<PrecisionRule> autocast_preset(const std::string& preset) {
  if (preset == "default") return {};
  // torch's softmax kernels read f16 and write f32; its batch norm writes what it reads, its other norms f32.
  if (preset == "torch")
    return {{"softmax", Precision::full, "torch preset"},      {"log_softmax", Precision::full, "torch preset"},
            {"batch_norm", Precision::follow, "torch preset"}, {"layer_norm", Precision::full, "torch preset"},
            {"group_norm", Precision::full, "torch preset"},   {"rms_norm", Precision::full, "torch preset"}};
  throw Error(fmt::format("autocast: no preset '{}'; there are: default, torch", preset));
}

namespace {

// A loss that is computed of low values alone is f32 again.
Graph with_wide_loss(const Graph& graph) {
  const Value loss = graph.output("loss");
  if (!loss || !is_low(graph.type(loss).dtype)) return graph;
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b);
  const auto mapped = [&](Value v) { return map[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)]; };
  OriginScope scope(b, graph.node(loss).origin);
  for (const NamedValue& o : graph.outputs())
    b.output(o.name, o.name == "loss" ? b.cast(mapped(o.value), DType::f32) : mapped(o.value));
  for (const StateUpdate& u : graph.updates()) b.update(mapped(u.state), mapped(u.value));
  return std::move(b).finish();
}

}  // namespace

Graph autocast(const Graph& graph, const AutocastOptions& options, AutocastReport* report) {
  return with_wide_loss(Autocast(graph, options, report).run());
}

}  // namespace halfstep
