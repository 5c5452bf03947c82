#include "passes/model/written_as_one.h"

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int kDeepest = 16;  // nodes between the scores' product and the softmax, and behind it

bool is_all(const Graph& graph, Value v, double number) {
  const Node* node = &graph.node(v);
  while (is(*node, "broadcast") || is(*node, "reshape")) node = &graph.node(node->operands[0]);
  return is(*node, "constant") &&
         std::ranges::all_of(node->attributes.tensor("value").values(), [&](double x) { return x == number; });
}

class Finder {
 public:
  explicit Finder(const Graph& graph) : graph_(graph), users_(graph.users()) {}

  std::map<std::string, std::string> run() {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (is(graph_.node(id), "softmax")) look_at_softmax(id);
      if (is(graph_.node(id), "group_norm")) look_at_norm(id);
    }
    return std::move(names_);
  }

 private:
  void look_at_norm(NodeId id) {
    const Node& norm = graph_.node(id);
    for (NodeId user : users_[static_cast<size_t>(id)])
      if (is(graph_.node(user), "reshape") && normalises_groups(graph_, norm, graph_.node(user).results[0]))
        add({norm.operands[0].node, id, user}, "group_norm");
  }

  void add(const std::vector<NodeId>& members, const std::string& op) {
    for (NodeId id : members)
      if (const std::string& name = graph_.node(id).origin.name; !name.empty()) names_.emplace(name, op);
  }

  void look_at_softmax(NodeId softmax) {
    std::vector<NodeId> members{softmax};
    seen_.clear();
    const std::optional<Value> product = find_product(graph_.node(softmax).operands[0], members, 0);
    if (!product) return;
    const auto [query, query_scale] = take_scale(graph_.node(*product).operands[0], members);
    const auto [key, key_scale] = take_scale(graph_.node(*product).operands[1], members);
    const bool as_three_axes = take_exchange(key, members);
    if (query_scale != key_scale || (!query_scale && !as_three_axes)) return;
    if (!take_second(softmax, members, 0)) return;
    add(members, "attention");
  }

  static bool is_moved(const Node& node) {
    return node.op->kernel == KernelKind::movement && node.operands.size() == 1;
  }

  // The scores' product behind masks; what stands between goes to `members`.
  std::optional<Value> find_product(Value v, std::vector<NodeId>& members, int depth) {
    const Node& node = graph_.node(v);
    if (depth == kDeepest || !seen_.insert(v.node).second) return std::nullopt;
    const size_t kept = members.size();
    members.push_back(v.node);
    if (is(node, "matmul")) return v;
    if (is_moved(node) || is(node, "add") || is(node, "select") || is(node, "cast"))
      for (Value operand : node.operands)
        if (operand && graph_.type(operand).dtype == graph_.type(v).dtype)
          if (const auto found = find_product(operand, members, depth + 1)) return found;
    members.resize(kept);
    return std::nullopt;
  }

  struct Scaled {
    Value of;
    std::optional<double> factor;
  };
  // The number that `v` is multiplied by, behind movements. Without one `v` is as it was.
  Scaled take_scale(Value v, std::vector<NodeId>& members) const {
    std::vector<NodeId> taken;
    Value product = v;
    while (is_moved(graph_.node(product))) taken.push_back(product.node), product = graph_.node(product).operands[0];
    const Node& node = graph_.node(product);
    if (!is(node, "mul")) return {v, std::nullopt};
    for (size_t i : {0u, 1u})
      if (const std::optional<double> factor = splat(graph_, node.operands[1 - i])) {
        taken.push_back(product.node);
        members.insert(members.end(), taken.begin(), taken.end());
        return {node.operands[i], factor};
      }
    return {v, std::nullopt};
  }

  // The exchange of the keys' last axes. Whether it was done with batch and heads as one axis, as the default exporter
  // writes it.
  bool take_exchange(Value key, std::vector<NodeId>& members) const {
    std::vector<NodeId> moved;
    const size_t rank = graph_.type(key).shape.size();
    for (Value v = key; is_moved(graph_.node(v)); v = graph_.node(v).operands[0]) {
      const Node& node = graph_.node(v);
      moved.push_back(v.node);
      if (!is(node, "transpose")) continue;
      const Ints& order = node.attributes.ints("permutation");
      const auto last = static_cast<int64_t>(order.size()) - 1;
      if (last < 1 || order[static_cast<size_t>(last)] != last - 1) return false;
      const bool joined = order.size() == 3 && rank == 4 && is(graph_.node(node.operands[0]), "reshape");
      if (joined) moved.push_back(node.operands[0].node);
      members.insert(members.end(), moved.begin(), moved.end());
      return joined;
    }
    return false;
  }

  // From the softmax to the product with the values, over guards and dropout.
  bool take_second(NodeId id, std::vector<NodeId>& members, int depth) {
    if (depth == kDeepest) return false;
    bool found = false;
    for (NodeId user : users_[static_cast<size_t>(id)]) {
      const Node& node = graph_.node(user);
      const bool ends = is(node, "matmul");
      if (!ends && !is_moved(node) && !is(node, "is_nan") && !is(node, "select") && !is(node, "dropout")) continue;
      if (!seen_.insert(user).second) continue;
      members.push_back(user);
      found |= ends || take_second(user, members, depth + 1);
    }
    return found;
  }

  const Graph& graph_;
  const std::vector<std::vector<NodeId>> users_;
  std::map<std::string, std::string> names_;
  std::set<NodeId> seen_;  // of one softmax
};

}  // namespace

std::map<std::string, std::string> written_as_one(const Graph& imported) { return Finder(imported).run(); }

bool normalises_groups(const Graph& graph, const Node& norm, const TensorType& result) {
  const Node& before = graph.node(norm.operands[0]);
  const int64_t groups = norm.attributes.integer("groups");
  if (!is(before, "reshape") || norm.attributes.integer("batch") != 0 || norm.attributes.integer("axis") != 1 ||
      !is_all(graph, norm.operands[1], 1) || !is_all(graph, norm.operands[2], 0))
    return false;
  const Shape &shape = result.shape, &grouped = norm.results[0].shape;
  return graph.type(before.operands[0]) == result && shape.size() >= 3 && shape[0] == grouped[0] &&
         groups == grouped[1] && shape[1] % groups == 0;
}

}  // namespace halfstep
