#include "passes/precision/colours.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

namespace halfstep {
namespace {

std::string quoted(const Node& node) {
  return node.origin.name.empty() ? std::string(node.op->name) : "'" + *node.origin.name + "'";
}

enum class List : uint8_t { none, allow, deny, infer, clear };

class Painter {
 public:
  Painter(const Graph& graph, const std::vector<PrecisionClass>& classes)
      : graph_(graph), inputs_(graph.nodes().size()), outputs_(graph.nodes().size()) {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      lists_.push_back(list_of(classes[static_cast<size_t>(id)], id));
      const Node& node = graph_.node(id);
      for (size_t i = 0; i < node.operands.size(); ++i) {
        const Value v = node.operands[i];
        if (!v || !is_castable_operand(node, i) || !is_castable(graph_.type(v).dtype)) continue;
        inputs_[static_cast<size_t>(id)].push_back(v.node);
        outputs_[static_cast<size_t>(v.node)].push_back(id);
      }
    }
  }

  std::vector<Colour> run() {
    const size_t count = lists_.size();
    // Deny, forward up to the last infer or denied node.
    std::vector<char> upstream(count, 0), denied(count, 0), downstream(count, 0), between(count, 0);
    std::vector<NodeId> denied_by(count, -1), low_by(count, -1);
    for_each({List::deny, List::infer}, [&](NodeId root) {
      walk(
          root, inputs_, [&](NodeId n) { return !upstream[at(n)] && list(n) == List::clear; },
          [&](NodeId n) { upstream[at(n)] = 1; });
    });
    for_each({List::deny}, [&](NodeId root) {
      if (denied[at(root)]) return;
      walk(
          root, outputs_, [&](NodeId n) { return !denied[at(n)] && upstream[at(n)]; },
          [&](NodeId n) { denied[at(n)] = 1, denied_by[at(n)] = root; });
    });
    // Low: what is between allowed nodes.
    low_.assign(count, 0);
    for_each({List::allow}, [&](NodeId root) {
      low_[at(root)] = 1;
      walk(
          root, outputs_, [&](NodeId n) { return !downstream[at(n)] && !denied[at(n)] && may_be_low(n); },
          [&](NodeId n) { downstream[at(n)] = 1; });
    });
    for_each({List::allow}, [&](NodeId root) {
      walk(
          root, inputs_, [&](NodeId n) { return !between[at(n)] && downstream[at(n)]; },
          [&](NodeId n) { between[at(n)] = 1, low_by[at(n)] = root; });
    });
    for (size_t i = 0; i < count; ++i) low_[i] |= between[i];
    // Clear nodes beside them, in both directions.
    std::vector<NodeId> beside(count, -1);
    const Edges both_ways = both();
    for (NodeId root = 0; root < graph_.size(); ++root) {
      if (!low_[at(root)] || beside[at(root)] >= 0) continue;
      const auto enter = [&](NodeId n) { return !low_[at(n)] && !denied[at(n)] && list(n) == List::clear; };
      const auto mark = [&](NodeId n) {
        if (!low_[at(n)]) beside[at(n)] = root;
        low_[at(n)] = 1;
      };
      walk(root, both_ways, enter, mark);
    }
    std::vector<Colour> colours(count);
    for (NodeId id = 0; id < graph_.size(); ++id) {
      Colour& c = colours[at(id)];
      c.is_low = low_[at(id)] != 0;
      c.reason = reason(id, denied_by[at(id)], low_by[at(id)], beside[at(id)]);
    }
    return colours;
  }

 private:
  static size_t at(NodeId id) { return static_cast<size_t>(id); }
  List list(NodeId id) const { return lists_[at(id)]; }
  bool may_be_low(NodeId id) const { return list(id) == List::clear || list(id) == List::infer; }

  static bool is_castable_operand(const Node& node, size_t i) {
    return node.op->operands[std::min(i, node.op->operands.size() - 1)].cast == OperandSpec::castable;
  }

  // What has no floating operand is in no list.
  List list_of(const PrecisionClass& c, NodeId id) const {
    const Node& node = graph_.node(id);
    bool floats = false;
    for (size_t i = 0; i < node.operands.size(); ++i)
      floats |= node.operands[i] && is_castable_operand(node, i) && is_castable(graph_.type(node.operands[i]).dtype);
    if (!floats || !c.has_row) return List::none;
    switch (c.precision) {
      case Precision::low:
        return List::allow;
      case Precision::full:
      case Precision::full_inside:
        return List::deny;
      case Precision::widest:
        return List::infer;
      case Precision::follow:
        return List::clear;
    }
    return List::none;
  }

  void for_each(std::initializer_list<List> lists, const std::function<void(NodeId)>& visit) const {
    for (NodeId id = 0; id < graph_.size(); ++id)
      if (std::ranges::find(lists, list(id)) != lists.end()) visit(id);
  }

  using Edges = std::vector<std::vector<NodeId>>;
  Edges both() const {
    Edges edges = inputs_;
    for (size_t i = 0; i < edges.size(); ++i) edges[i].insert(edges[i].end(), outputs_[i].begin(), outputs_[i].end());
    return edges;
  }

  static void walk(NodeId root, const Edges& edges, const std::function<bool(NodeId)>& enters,
                   const std::function<void(NodeId)>& mark) {
    std::vector<NodeId> open{root};
    mark(root);
    while (!open.empty()) {
      const NodeId id = open.back();
      open.pop_back();
      for (NodeId next : edges[at(id)])
        if (enters(next)) mark(next), open.push_back(next);
    }
  }

  std::string reason(NodeId id, NodeId denied_by, NodeId low_by, NodeId beside) const {
    if (list(id) == List::allow) return "allowed";
    if (denied_by >= 0)
      return denied_by == id ? "denied" : fmt::format("denied downstream of {}", quoted(graph_.node(denied_by)));
    if (low_by >= 0) return fmt::format("between allowed nodes, before {}", quoted(graph_.node(low_by)));
    if (beside >= 0) return fmt::format("clear, beside {}", quoted(graph_.node(beside)));
    return list(id) == List::none ? "in no list" : "not between allowed nodes";
  }

  const Graph& graph_;
  std::vector<List> lists_;
  Edges inputs_, outputs_;  // over values that are cast
  std::vector<char> low_;
};

}  // namespace

std::vector<Colour> paint(const Graph& graph, const std::vector<PrecisionClass>& classes) {
  return Painter(graph, classes).run();
}

}  // namespace halfstep
