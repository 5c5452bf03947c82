#include "passes/model/written_attention.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int kDeepest = 16;  // nodes between the scores' product and the softmax, and behind it

class Finder {
 public:
  explicit Finder(const Graph& graph) : graph_(graph), users_(graph.users()) {}

  std::set<std::string> run() {
    for (NodeId id = 0; id < graph_.size(); ++id)
      if (is(graph_.node(id), "softmax")) look_at(id);
    return std::move(names_);
  }

 private:
  void look_at(NodeId softmax) {
    std::vector<NodeId> members{softmax};
    const std::optional<Value> product = find_product(graph_.node(softmax).operands[0], members, 0);
    if (!product) return;
    std::optional<double> factors[2];
    for (size_t i : {0u, 1u}) factors[i] = take_scale(graph_.node(*product).operands[i], members);
    if (!factors[0] || factors[0] != factors[1]) return;
    if (!take_second(softmax, members, 0)) return;
    for (NodeId id : members)
      if (const std::string& name = graph_.node(id).origin.name; !name.empty()) names_.insert(name);
  }

  static bool is_moved(const Node& node) {
    return node.op->kernel == KernelKind::movement && node.operands.size() == 1;
  }

  // The scores' product behind masks; what stands between goes to `members`.
  std::optional<Value> find_product(Value v, std::vector<NodeId>& members, int depth) const {
    const Node& node = graph_.node(v);
    if (depth == kDeepest) return std::nullopt;
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

  // The number that `v` is multiplied by, behind movements.
  std::optional<double> take_scale(Value v, std::vector<NodeId>& members) const {
    while (is_moved(graph_.node(v))) members.push_back(v.node), v = graph_.node(v).operands[0];
    const Node& node = graph_.node(v);
    if (!is(node, "mul")) return std::nullopt;
    members.push_back(v.node);
    const std::optional<double> right = splat(graph_, node.operands[1]);
    return right ? right : splat(graph_, node.operands[0]);
  }

  // From the softmax to the product with the values, over guards and dropout.
  bool take_second(NodeId id, std::vector<NodeId>& members, int depth) const {
    if (depth == kDeepest) return false;
    bool found = false;
    for (NodeId user : users_[static_cast<size_t>(id)]) {
      const Node& node = graph_.node(user);
      const bool ends = is(node, "matmul");
      if (!ends && !is_moved(node) && !is(node, "is_nan") && !is(node, "select") && !is(node, "dropout")) continue;
      members.push_back(user);
      found |= ends || take_second(user, members, depth + 1);
    }
    return found;
  }

  const Graph& graph_;
  const std::vector<std::vector<NodeId>> users_;
  std::set<std::string> names_;
};

}  // namespace

std::set<std::string> written_attention(const Graph& imported) { return Finder(imported).run(); }

}  // namespace halfstep
