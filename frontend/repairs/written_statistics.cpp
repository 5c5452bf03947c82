#include "frontend/repairs/written_statistics.h"

#include <algorithm>
#include <map>
#include <set>

#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep {
namespace {

constexpr NodeId kNone = -1;

class StatisticsFinder {
 public:
  explicit StatisticsFinder(const Graph& graph)
      : graph_(graph), users_(graph.users()), of_weights_(static_cast<size_t>(graph.size()), 0) {
    variances_.assign(static_cast<size_t>(graph.size()), kNone);
    for (NodeId id = 0; id < graph.size(); ++id) look_at(id);
  }

  // Means, each with the variances beside it.
  std::map<NodeId, std::set<NodeId>> find() const {
    std::map<NodeId, std::set<NodeId>> found;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      std::set<NodeId> variances;
      if (op(id) == "parameter" && is_mean(id, variances)) found[id] = std::move(variances);
    }
    return found;
  }

 private:
  std::string_view op(NodeId id) const { return graph_.node(id).op->name; }
  const std::vector<NodeId>& users(NodeId id) const { return users_[static_cast<size_t>(id)]; }
  bool of_weights(NodeId id) const { return of_weights_[static_cast<size_t>(id)] != 0; }
  NodeId variance_in(NodeId id) const { return variances_[static_cast<size_t>(id)]; }
  bool is_view(NodeId id) const { return op(id) == "reshape" || op(id) == "broadcast" || op(id) == "transpose"; }
  NodeId unviewed(NodeId id) const {
    while (is_view(id)) id = graph_.node(id).operands[0].node;
    return id;
  }

  // Whether the node is made of parameters and constants alone, and of which variance.
  void look_at(NodeId id) {
    const Node& node = graph_.node(id);
    const KernelKind kind = node.op->kernel;
    bool all = op(id) == "parameter" || op(id) == "constant" ||
               ((kind == KernelKind::pointwise || kind == KernelKind::movement) && !node.operands.empty());
    NodeId variance = kNone;
    for (Value operand : node.operands) {
      all &= operand && of_weights(operand.node);
      if (operand && variance_in(operand.node) != kNone) variance = variance_in(operand.node);
    }
    if (!all) return;
    of_weights_[static_cast<size_t>(id)] = 1;
    if (op(id) == "sqrt" || op(id) == "rsqrt" || op(id) == "pow") variance = variance_under(node.operands[0].node);
    variances_[static_cast<size_t>(id)] = variance;
  }

  // The parameter v of v + constant, if nothing else reads it.
  NodeId variance_under(NodeId sum) const {
    sum = unviewed(sum);
    if (op(sum) != "add") return kNone;
    const std::vector<Value>& terms = graph_.node(sum).operands;
    for (size_t i : {0u, 1u}) {
      const NodeId parameter = unviewed(terms[i].node);
      if (op(parameter) != "parameter" || op(unviewed(terms[1 - i].node)) != "constant") continue;
      const std::vector<NodeId> readers = readers_of(parameter);
      if (std::ranges::all_of(readers, [&](NodeId reader) { return op(reader) == "add"; })) return parameter;
    }
    return kNone;
  }

  // The readers of a value itself or of a view of it.
  std::vector<NodeId> readers_of(NodeId id) const {
    std::vector<NodeId> readers, open = users(id);
    while (!open.empty()) {
      const NodeId user = open.back();
      open.pop_back();
      if (is_view(user))
        open.insert(open.end(), users(user).begin(), users(user).end());
      else
        readers.push_back(user);
    }
    return readers;
  }

  // Every reader of the parameter either takes it from values that are then divided by a deviation, or multiplies it
  // with one over a deviation and is taken from a bias.
  bool is_mean(NodeId parameter, std::set<NodeId>& variances) const {
    const std::vector<NodeId> readers = readers_of(parameter);
    return !readers.empty() && std::ranges::all_of(readers, [&](NodeId reader) {
      const std::vector<Value>& operands = graph_.node(reader).operands;
      if (op(reader) == "sub" && !of_weights(reader))
        return unviewed(operands[1].node) == parameter && is_divided(reader, variances, 0);
      return op(reader) == "mul" && of_weights(reader) && variance_in(reader) != kNone &&
             is_subtracted(reader, variances);
    });
  }

  bool is_divided(NodeId centred, std::set<NodeId>& variances, int depth) const {
    constexpr int kDeepest = 3;  // factors on the way
    const std::vector<NodeId> readers = readers_of(centred);
    return depth < kDeepest && !readers.empty() &&
           std::ranges::all_of(
               readers,
               [&](NodeId reader) {
                 if (op(reader) != "mul" && op(reader) != "div") return false;
                 const std::vector<Value>& operands = graph_.node(reader).operands;
                 const NodeId factor = operands[of_weights(operands[0].node) ? 0 : 1].node;
                 if (!of_weights(factor)) return false;
                 if (variance_in(factor) == kNone) return is_divided(reader, variances, depth + 1);
                 variances.insert(variance_in(factor));
                 return true;
               });
  }

  bool is_subtracted(NodeId product, std::set<NodeId>& variances) const {
    const std::vector<NodeId> readers = readers_of(product);
    variances.insert(variance_in(product));
    return !readers.empty() && std::ranges::all_of(readers, [&](NodeId reader) {
      return op(reader) == "sub" && of_weights(reader) && unviewed(graph_.node(reader).operands[1].node) == product;
    });
  }

  const Graph& graph_;
  const std::vector<std::vector<NodeId>> users_;
  std::vector<char> of_weights_;
  std::vector<NodeId> variances_;  // that a value of weights is made of; kNone: of none
};

}  // namespace

Graph keep_written_statistics(const Graph& graph, WrittenStatistics& found) {
  const auto name = [&](NodeId id) { return graph.node(id).attributes.text("name"); };
  std::set<NodeId> kept, variances;
  for (const auto& [mean, beside] : StatisticsFinder(graph).find()) {
    found.means.push_back(name(mean));
    kept.insert(mean), variances.insert(beside.begin(), beside.end());
  }
  for (NodeId variance : variances) found.variances.push_back(name(variance));
  kept.merge(variances);
  if (kept.empty()) return graph;
  NodeId next = 0;
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value>) {
    return kept.contains(next++) ? std::vector{b.state(node.attributes.text("name"), node.results[0])}
                                 : std::vector<Value>();
  });
}

}  // namespace halfstep
