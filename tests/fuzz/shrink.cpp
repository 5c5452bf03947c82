#include "tests/fuzz/shrink.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep::fuzz {
namespace {

bool has_batch(const Graph& graph) {
  return std::ranges::any_of(graph.nodes(), [](const Node& n) {
    return n.op->name == "input" && !n.results[0].shape.empty() && n.results[0].shape[0] > 0;
  });
}

// Without the inputs that nothing reads, except one with a first axis.
Graph without_idle_inputs(const Graph& graph) {
  const auto users = graph.users();
  Builder b(graph.name());
  ValueMap map(graph);
  bool batch = false;
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    const bool is_output =
        std::ranges::any_of(graph.outputs(), [&](const NamedValue& o) { return o.value.node == id; });
    if (node.op->name == "input" && users[static_cast<size_t>(id)].empty() && !is_output) {
      const Shape& shape = node.results[0].shape;
      if (batch || shape.empty() || shape[0] == 0) continue;
    }
    batch |= node.op->name == "input" && !node.results[0].shape.empty() && node.results[0].shape[0] > 0;
    std::vector<Value> operands;
    for (Value v : node.operands) operands.push_back(map(v));
    map.set(id, b.call_all(*node.op, operands, node.attributes));
  }
  for (const NamedValue& o : graph.outputs()) b.output(o.name, map(o.value));
  return std::move(b).finish();
}

class Shrinker {
 public:
  Shrinker(FuzzCase failing, const std::function<bool(const FuzzCase&)>& fails, int most)
      : case_(std::move(failing)), fails_(fails), left_(most) {}

  FuzzCase run() {
    for (bool smaller = true; smaller && left_ > 0;) {
      smaller = drop_outputs();
      smaller |= replace_nodes();
      smaller |= shrink_axes();
      smaller |= simplify_values();
    }
    return std::move(case_);
  }

 private:
  bool accept(Graph graph, const CaseValues& values) {
    if (left_ <= 0) return false;
    FuzzCase candidate{without_idle_inputs(graph), {}};
    if (!has_batch(candidate.graph)) return false;
    bool trains = false;
    for (const Node& node : candidate.graph.nodes())
      if (is_leaf(*node.op)) {
        candidate.values[node.attributes.text("name")] = values.at(node.attributes.text("name"));
        trains |= node.op->name == "parameter";
      }
    --left_;
    if (!trains || !fails_(candidate)) return false;
    case_ = std::move(candidate);
    return true;
  }

  // A rewrite that the types reject is no smaller case.
  bool try_rewrite(const NodeRewrite& rewrite_node) {
    try {
      return accept(rewrite(case_.graph, rewrite_node), case_.values);
    } catch (const Error&) {
      return false;
    }
  }

  bool drop_outputs() {
    bool any = false;
    for (size_t i = case_.graph.outputs().size(); i-- > 0;) {
      if (i >= case_.graph.outputs().size() || case_.graph.outputs()[i].name == "loss") continue;
      Builder b(case_.graph.name());
      const ValueMap map = copy_nodes(case_.graph, b);
      for (size_t k = 0; k < case_.graph.outputs().size(); ++k)
        if (const NamedValue& o = case_.graph.outputs()[k]; k != i) b.output(o.name, map(o.value));
      any |= accept(std::move(b).finish(), case_.values);
    }
    return any;
  }

  // By an operand of its type, else by ones or zeros.
  bool replace_nodes() {
    bool any = false;
    for (NodeId wanted = case_.graph.size(); wanted-- > 0;) {
      if (wanted >= case_.graph.size()) continue;
      const Node node = case_.graph.node(wanted);
      if (is_leaf(*node.op) || node.op->name == "constant" || node.results.size() > 1) continue;
      const auto with = [&](const std::function<Value(Builder&, std::span<const Value>)>& other) {
        NodeId at = 0;
        return try_rewrite([&](Builder& b, const Node& n, std::span<const Value> operands) -> std::vector<Value> {
          if (at++ != wanted || n.op != node.op) return {};
          return {other(b, operands)};
        });
      };
      bool replaced = false;
      for (size_t i = 0; i < node.operands.size() && !replaced; ++i)
        if (node.operands[i] && case_.graph.type(node.operands[i]) == node.results[0])
          replaced = with([&](Builder&, std::span<const Value> operands) { return operands[i]; });
      const bool constant = node.op->kernel == KernelKind::movement && node.op->name == "broadcast";
      if (!replaced && !constant)
        replaced = with([&](Builder& b, std::span<const Value>) {
          return b.broadcast(b.constant(node.results[0].dtype, 1), node.results[0].shape);
        });
      any |= replaced;
    }
    return any;
  }

  // Every axis of one size, in leaves and in attributes, gets a smaller one.
  bool shrink_axes() {
    std::set<int64_t, std::greater<>> sizes;
    for (const Node& node : case_.graph.nodes())
      for (int64_t d : node.results[0].shape)
        if (d > 1) sizes.insert(d);
    bool any = false;
    for (int64_t from : sizes)
      for (int64_t to : {int64_t{1}, int64_t{2}, from / 2, from - 1}) {
        if (to < 1 || to >= from || !resize(from, to)) continue;
        any = true;
        break;
      }
    return any;
  }

  bool resize(int64_t from, int64_t to) {
    return try_rewrite([&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
      Attributes attributes = node.attributes;
      for (const char* name : {"shape", "limits", "spatial"}) {
        const Attribute* found = attributes.find(name);
        if (!found) continue;
        Ints values = std::get<Ints>(*found);
        std::ranges::replace(values, from, to);
        attributes.set(name, values);
      }
      if (const Attribute* value = attributes.find("value"); value && node.op->name == "constant") {
        const Tensor old = std::get<Tensor>(*value);
        TensorType type = old.type;
        std::ranges::replace(type.shape, from, to);
        Tensor smaller(type);
        for (int64_t i = 0; i < type.element_count(); ++i) smaller.set(i, old.at(i));
        attributes.set("value", smaller);
      }
      return b.call_all(*node.op, {operands.begin(), operands.end()}, attributes);
    });
  }

  bool simplify_values() {
    bool any = false;
    const CaseValues before = case_.values;
    for (const auto& [name, values] : before) {
      if (values.distribution == Distribution::below) continue;
      for (Distribution simpler : {Distribution::zeros, Distribution::ones, Distribution::grid}) {
        if (simpler == values.distribution) break;
        CaseValues changed = case_.values;
        changed[name].distribution = simpler;
        if (!accept(case_.graph, changed)) continue;
        any = true;
        break;
      }
    }
    return any;
  }

  FuzzCase case_;
  const std::function<bool(const FuzzCase&)>& fails_;
  int left_;
};

}  // namespace

FuzzCase shrink(FuzzCase failing, const std::function<bool(const FuzzCase&)>& fails, int most) {
  return Shrinker(std::move(failing), fails, most).run();
}

}  // namespace halfstep::fuzz
