#include "frontend/import/initial_scheme.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ir/op.h"

namespace halfstep {
namespace {

constexpr double kTableBound = 0.05;  // of Keras' Embedding

bool is(const Node& node, std::string_view op) { return node.op->name == op; }

// The parameter behind movements and casts; nullptr: none.
const Node* parameter_of(const Graph& graph, Value v) {
  for (;;) {
    const Node& node = graph.node(v);
    if (is(node, "parameter")) return &node;
    if (node.operands.size() != 1 || (node.op->kernel != KernelKind::movement && !is(node, "cast"))) return nullptr;
    v = node.operands[0];
  }
}

bool has_attention(const Graph& graph, const std::vector<std::vector<NodeId>>& users) {
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    if (node.op->kernel == KernelKind::attention || is(node, "attention")) return true;
    if (!is(node, "softmax")) continue;
    // Weights of attention multiply values, dropped out or moved before.
    std::vector<NodeId> way = users[static_cast<size_t>(id)];
    for (size_t i = 0; i < way.size() && i < 32; ++i) {
      const Node& reader = graph.node(way[i]);
      if (is(reader, "matmul"))
        if (!parameter_of(graph, reader.operands[0]) && !parameter_of(graph, reader.operands[1])) return true;
      if (reader.op->kernel == KernelKind::movement || reader.op->kernel == KernelKind::pointwise ||
          is(reader, "dropout"))
        way.insert(way.end(), users[static_cast<size_t>(way[i])].begin(), users[static_cast<size_t>(way[i])].end());
    }
  }
  return false;
}

struct Branch {
  NodeId product = -1;
  const Node* weight = nullptr;
};

// The product of a weight that an addition takes in there: past its bias, dropout, movements and factors that are
// learnt.
Branch branch_behind(const Graph& graph, Value v) {
  for (int steps = 0; steps < 16; ++steps) {
    const Node& node = graph.node(v);
    if (is(node, "matmul")) {
      const Node* first = parameter_of(graph, node.operands[0]);
      return {v.node, first ? first : parameter_of(graph, node.operands[1])};
    }
    const bool learnt = (is(node, "add") || is(node, "mul")) && node.operands.size() == 2;
    if (learnt && parameter_of(graph, node.operands[1]))
      v = node.operands[0];
    else if (learnt && parameter_of(graph, node.operands[0]))
      v = node.operands[1];
    else if (!node.operands.empty() &&
             (node.op->kernel == KernelKind::movement || is(node, "dropout") || is(node, "cast")))
      v = node.operands[0];
    else
      return {};
  }
  return {};
}

// Whether `v` is computed of the node `of`, as the cube in a gelu is of what it is added to. Nodes are in order.
bool is_computed_of(const Graph& graph, Value v, NodeId of) {
  std::set<NodeId> seen;
  std::vector<NodeId> open{v.node};
  while (!open.empty()) {
    const NodeId at = open.back();
    open.pop_back();
    if (at == of) return true;
    if (at < of || !seen.insert(at).second) continue;
    for (const Value operand : graph.node(at).operands)
      if (operand) open.push_back(operand.node);
  }
  return false;
}

// Past movements, which stand between additions where exporters fold axes.
NodeId unmoved(const Graph& graph, Value v) {
  while (graph.node(v).op->kernel == KernelKind::movement && graph.node(v).operands.size() == 1)
    v = graph.node(v).operands[0];
  return v.node;
}

}  // namespace

InitialRules::InitialRules(const Graph& graph, InitialScheme scheme) : scheme_(scheme) {
  const std::vector<std::vector<NodeId>> users = graph.users();
  if (scheme_.kind == InitialScheme::automatic) {
    scheme_.kind = has_attention(graph, users) ? InitialScheme::normal : InitialScheme::pytorch;
    convolutions_ = false;
  }
  if (scheme_.kind != InitialScheme::normal) return;
  std::set<NodeId> additions;
  bool is_stream = false;  // that an addition reads another's sum: norms stand beside it, not in it
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    if (!is(node, "add") || node.operands.size() != 2) continue;
    for (size_t i : {0u, 1u}) {
      const auto [product, weight] = branch_behind(graph, node.operands[i]);
      const Value other = node.operands[1 - i];
      if (!weight || parameter_of(graph, other) || graph.node(other).op->leaf != Leaf::none ||
          is_computed_of(graph, other, product))
        continue;
      is_stream |= additions.contains(unmoved(graph, other));
      additions.insert(id);
      residual_.insert(weight->attributes.text("name"));
      break;
    }
  }
  if (is_stream)
    residual_factor_ = 1 / std::sqrt(static_cast<double>(additions.size()));
  else
    residual_.clear();
}

Initializer InitialRules::operator()(const std::string& parameter, const Initializer& rule) const {
  const bool layer = rule.role == Initializer::layer || (rule.role == Initializer::convolution && convolutions_);
  const bool bias =
      rule.role == Initializer::layer_bias || (rule.role == Initializer::convolution_bias && convolutions_);
  switch (scheme_.kind) {
    case InitialScheme::xavier: {
      const double fans = static_cast<double>(rule.fan_in + rule.fan_out);
      if (rule.role == Initializer::table) return {Initializer::uniform, kTableBound};
      if (bias) return {Initializer::constant, 0};
      if (layer && fans > 0) return {Initializer::uniform, std::sqrt(6 / fans)};
      return rule;
    }
    case InitialScheme::normal: {
      if (bias) return {Initializer::constant, 0};
      if (!layer && rule.role != Initializer::table) return rule;
      const double factor = residual_.contains(parameter) ? residual_factor_ : 1;
      return {Initializer::normal, scheme_.deviation * factor};
    }
    default:
      return rule;
  }
}

std::string InitialRules::text() const {
  switch (scheme_.kind) {
    case InitialScheme::xavier:
      return "xavier";
    case InitialScheme::normal:
      return fmt::format("normal {:g}", scheme_.deviation) +
             (residual_.empty() ? "" : fmt::format(", times {:.3g} into the residual stream", residual_factor_));
    default:
      return "pytorch";
  }
}

std::string to_string(const Initializer& rule) {
  switch (rule.kind) {
    case Initializer::uniform:
      return fmt::format("uniform ±{:.3g}", rule.parameter);
    case Initializer::normal:
      return fmt::format("normal {:.3g}", rule.parameter);
    default:
      return fmt::format("{:g}", rule.parameter);
  }
}

}  // namespace halfstep
