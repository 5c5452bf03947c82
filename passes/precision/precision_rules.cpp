#include "passes/precision/precision_rules.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

bool fits(const std::string& pattern, const std::string& name) {
  return !name.empty() && fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

// Of rules that are Halfstep's own: the model need not have what they name.
constexpr const char *kTorchPreset = "torch preset", *kAccumulating = "accumulates";

class Classes {
 public:
  Classes(const Graph& graph, const SourceNodes& sources) : graph_(graph), sources_(sources) {
    for (const auto& [part, whole] : sources.part_of) parts_[whole].push_back(part);
  }

  std::vector<PrecisionClass> of(const std::vector<PrecisionRule>& rules) const {
    check(rules);
    std::vector<PrecisionClass> classes;
    classes.reserve(graph_.nodes().size());
    const std::string* name = nullptr;  // of the node before, which most often is that of the same node of the file
    const std::string* onnx = nullptr;
    for (const Node& node : graph_.nodes()) {
      PrecisionClass c{node.op->precision, ""};
      if (&*node.origin.name != name) name = &*node.origin.name, onnx = operator_of(*name);
      for (const PrecisionRule& rule : rules)
        if (applies(rule, node, onnx))
          c = {rule.precision,
               is_operator(rule.pattern) ? rule.source : fmt::format("{}: pattern '{}'", rule.source, rule.pattern)};
      classes.push_back(std::move(c));
    }
    return classes;
  }

 private:
  bool is_operator(const std::string& pattern) const {
    return sources_.known_operators.contains(pattern) || std::ranges::any_of(all_ops(), [&](const Op* op) {
             return op->name == pattern || (!op->onnx.empty() && op->onnx == pattern);
           });
  }

  // Whether the ONNX node of this name is one that the pattern means.
  static bool means(const std::string& pattern, const std::string& name, const std::string* onnx) {
    return fits(pattern, name) || (onnx && *onnx == pattern);
  }
  bool means(const std::string& pattern, const std::string& name) const {
    return means(pattern, name, operator_of(name));
  }
  const std::string* operator_of(const std::string& name) const {
    const auto op = sources_.operators.find(name);
    return op == sources_.operators.end() ? nullptr : &op->second;
  }

  // `onnx`: the operator of the ONNX node behind it, nullptr if there is none.
  bool applies(const PrecisionRule& rule, const Node& node, const std::string* onnx) const {
    const std::string& name = node.origin.name;
    if (rule.pattern == node.op->name || (!node.op->onnx.empty() && rule.pattern == node.op->onnx)) return true;
    if (name.empty()) return false;
    if (means(rule.pattern, name, onnx)) return true;
    if (parts_.empty()) return false;
    const auto parts = parts_.find(name);
    return rule.precision == Precision::full && parts != parts_.end() &&
           std::ranges::any_of(parts->second, [&](const std::string& part) { return means(rule.pattern, part); });
  }

  void check(const std::vector<PrecisionRule>& rules) const {
    Problems problems;
    for (const PrecisionRule& rule : rules) {
      if (rule.source == kTorchPreset || rule.source == kAccumulating || is_operator(rule.pattern) ||
          std::ranges::any_of(graph_.nodes(),
                              [&](const Node& node) { return applies(rule, node, operator_of(node.origin.name)); }) ||
          std::ranges::any_of(sources_.operators, [&](const auto& node) { return means(rule.pattern, node.first); }))
        continue;
      std::vector<std::string> known(sources_.known_operators.begin(), sources_.known_operators.end());
      for (const Op* op : all_ops()) known.push_back(std::string(op->onnx.empty() ? op->name : op->onnx));
      for (const Node& node : graph_.nodes()) known.push_back(node.origin.name);
      for (const auto& [name, op] : sources_.operators) known.push_back(name);
      const std::string suggestion = nearest(rule.pattern, known);
      problems.add(fmt::format("autocast: {} '{}' is no operator and matches no node of the model{}", rule.source,
                               rule.pattern,
                               suggestion.empty() ? "" : fmt::format("; did you mean '{}'?", suggestion)));
    }
    problems.throw_if_any();
  }

  const Graph& graph_;
  const SourceNodes& sources_;
  std::map<std::string, std::vector<std::string>> parts_;
};

}  // namespace

PrecisionRule allow_rule(std::string pattern) { return {std::move(pattern), Precision::low, "allow list"}; }
PrecisionRule deny_rule(std::string pattern) { return {std::move(pattern), Precision::full, "deny list"}; }
PrecisionRule infer_rule(std::string pattern) { return {std::move(pattern), Precision::follow, "infer list"}; }

std::vector<PrecisionRule> autocast_preset(const std::string& preset) {
  // Powers that are summed, and products of many: what they are made of is beyond f16 where their results need not be.
  const std::vector<PrecisionRule> accumulating = {{"LpPool", Precision::full, kAccumulating},
                                                   {"CumProd", Precision::full, kAccumulating}};
  if (preset == "default") return accumulating;
  if (preset != "torch") throw Error(fmt::format("autocast: no preset '{}'; there are: default, torch", preset));
  // torch's softmax kernels read f16 and write f32; its batch and instance norms write what they read, its other norms
  // f32; a mean writes what it reads, a sum f32; resampling is f32, and a power, also one inside what was recognised.
  std::vector<PrecisionRule> rules = accumulating;
  for (const char* op :
       {"softmax", "log_softmax", "layer_norm", "group_norm", "rms_norm", "resample", "Resize", "Upsample", "Pow"})
    rules.push_back({op, Precision::full, kTorchPreset});
  for (const char* op : {"batch_norm", "InstanceNormalization", "ReduceMean", "GlobalAveragePool", "sin", "cos"})
    rules.push_back({op, Precision::follow, kTorchPreset});
  rules.push_back({"PRelu", Precision::low, kTorchPreset});
  return rules;
}

std::vector<PrecisionClass> precision_classes(const Graph& graph, const std::vector<PrecisionRule>& rules,
                                              const SourceNodes& sources) {
  return Classes(graph, sources).of(rules);
}

std::map<std::string, std::string> parts_taken_in(const Graph& before, const Graph& after) {
  // A constant that kept the name of a node does not stand for it.
  const auto computing = [](const Graph& graph) {
    std::vector<char> computes;
    for (const Node& node : graph.nodes()) {
      bool on_data = is_leaf(*node.op);
      for (Value v : node.operands) on_data |= v && computes[static_cast<size_t>(v.node)];
      computes.push_back(on_data);
    }
    return computes;
  };
  std::unordered_set<std::string_view> there;
  const std::vector<char> computes_after = computing(after), computes_before = computing(before);
  for (NodeId id = 0; id < after.size(); ++id)
    if (computes_after[static_cast<size_t>(id)] && !is_leaf(*after.node(id).op))
      there.insert(*after.node(id).origin.name);
  std::map<std::string, std::string> taken_in;
  const std::vector<std::vector<NodeId>> users = before.users();
  std::vector<Shared<std::string>> nearest_name(before.nodes().size());
  const auto look = [&](NodeId id, auto&& neighbours) {
    const Node& node = before.node(id);
    Shared<std::string>& found = nearest_name[static_cast<size_t>(id)];
    if (!computes_before[static_cast<size_t>(id)] || !found.empty()) return;
    if (!is_leaf(*node.op) && there.contains(*node.origin.name)) {
      found = node.origin.name;
      return;
    }
    for (NodeId other : neighbours)
      if (found.empty() && !is_leaf(*before.node(other).op)) found = nearest_name[static_cast<size_t>(other)];
    if (!found.empty() && !is_leaf(*node.op) && !node.origin.name.empty()) taken_in.emplace(node.origin.name, found);
  };
  for (NodeId id = before.size(); id-- > 0;) look(id, users[static_cast<size_t>(id)]);
  std::vector<NodeId> makers;
  for (NodeId id = 0; id < before.size(); ++id) {
    makers.clear();
    for (Value v : before.node(id).operands)
      if (v) makers.push_back(v.node);
    look(id, makers);
  }
  return taken_in;
}

}  // namespace halfstep
