#include "passes/model/choose_layouts.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "ir/builder.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

Ints identity(size_t rank) {
  Ints result(rank);
  std::iota(result.begin(), result.end(), 0);
  return result;
}

// The value of the original graph is transpose(value, pending).
struct Placed {
  Value value;
  Ints pending;
};

// transpose(v, permutation), as near to the leaves as that is free.
Value transposed(Builder& b, Value v, const Ints& permutation) {
  if (is_identity(permutation)) return v;
  const Shape shape = permuted(b.shape(v), permutation);
  const Node maker = b.graph().node(v);
  if (is(maker, "constant")) return b.constant(maker.attributes.tensor("value").transpose(permutation));
  if (is(maker, "broadcast")) return b.broadcast(transposed(b, maker.operands[0], permutation), shape);
  if (is(maker, "transpose"))
    return transposed(b, maker.operands[0], compose(maker.attributes.ints("permutation"), permutation));
  if (keeps_order(b.shape(v), permutation)) return b.reshape(v, shape);
  return b.transpose(v, permutation);
}

bool has_axis_role(const Op& op) {
  return std::ranges::any_of(op.attributes, [](const AttributeSpec& s) { return s.role != AxisRole::none; });
}

bool needs_its_last_axes(const Op& op) {
  return std::ranges::any_of(op.attributes, [](const AttributeSpec& s) { return s.role == AxisRole::last_axes; });
}

// Whether a composite's expansion treats every element of its first operand alike.
bool expands_pointwise(const Node& node, std::span<const TensorType> operands) {
  Builder b("expansion");
  std::vector<Value> inputs;
  for (const TensorType& type : operands) inputs.push_back(b.input(std::to_string(inputs.size()), type));
  node.op->expand({b, node, inputs});
  std::vector<char> tainted(b.graph().nodes().size(), 0);
  tainted[static_cast<size_t>(inputs[0].node)] = 1;
  for (NodeId id = 0; id < b.graph().size(); ++id) {
    const Node& n = b.graph().node(id);
    const bool reads =
        std::ranges::any_of(n.operands, [&](Value v) { return v && tainted[static_cast<size_t>(v.node)]; });
    if (reads && n.op->kernel != KernelKind::pointwise) return false;
    tainted[static_cast<size_t>(id)] |= reads;
  }
  return true;
}

// The attributes with axes of the original operand turned into axes of the placed one.
Attributes moved_attributes(const Node& node, const Ints& pending) {
  Attributes attributes = node.attributes;
  for (const AttributeSpec& spec : node.op->attributes) {
    if (spec.role == AxisRole::axis) {
      attributes.set(spec.name, pending[static_cast<size_t>(attributes.integer(spec.name))]);
    } else if (spec.role == AxisRole::axes) {
      Ints axes;
      for (int64_t axis : attributes.ints(spec.name)) axes.push_back(pending[static_cast<size_t>(axis)]);
      std::ranges::sort(axes);
      attributes.set(spec.name, axes);
    } else if (spec.role == AxisRole::per_axis && !attributes.ints(spec.name).empty()) {
      attributes.set(spec.name, permuted(attributes.ints(spec.name), inverse(pending)));
    }
  }
  return attributes;
}

class LayoutChooser {
 public:
  explicit LayoutChooser(const Graph& graph) : graph_(graph), users_(graph.users()), b_(graph.name()) {}

  Graph run() {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      OriginScope scope(b_, node.origin);
      placed_.push_back(place(id, node));
    }
    for (const NamedValue& o : graph_.outputs()) b_.output(o.name, in_place(o.value));
    for (const StateUpdate& u : graph_.updates()) b_.update(in_place(u.state), in_place(u.value));
    return std::move(b_).finish();
  }

 private:
  const Placed& at(Value v) const { return placed_[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)]; }
  size_t rank(Value v) const { return graph_.type(v).shape.size(); }
  Value in_place(Value v) { return with_pending(v, identity(rank(v))); }

  // The value w with transpose(w, pending) = the original v.
  Value with_pending(Value v, const Ints& pending) {
    return transposed(b_, at(v).value, compose(at(v).pending, inverse(pending)));
  }

  // The one permutation by which every user transposes the leaf.
  std::optional<Ints> agreed_transpose(NodeId leaf) const {
    std::optional<Ints> agreed;
    for (NodeId user : users_[static_cast<size_t>(leaf)]) {
      const Node& node = graph_.node(user);
      if (!is(node, "transpose")) return std::nullopt;
      const Ints& permutation = node.attributes.ints("permutation");
      if (agreed && *agreed != permutation) return std::nullopt;
      agreed = permutation;
    }
    for (const NamedValue& o : graph_.outputs())
      if (o.value.node == leaf) return std::nullopt;
    return agreed;
  }

  Placed place_parameter(NodeId id, const Node& node) {
    const TensorType& type = node.results[0];
    const std::string& name = node.attributes.text("name");
    Ints stored = node.attributes.ints("permutation");
    const std::optional<Ints> agreed = agreed_transpose(id);
    if (!agreed) return {b_.parameter(name, type, stored), identity(type.shape.size())};
    if (stored.empty()) stored = identity(type.shape.size());
    stored = compose(stored, *agreed);
    if (is_identity(stored)) stored.clear();
    return {b_.parameter(name, {type.dtype, permuted(type.shape, *agreed)}, stored), inverse(*agreed)};
  }

  bool moves_with_its_operands(const Node& node) const {
    if (node.op->kernel == KernelKind::leaf || node.operands.empty() || needs_its_last_axes(*node.op)) return false;
    if (node.op->kernel == KernelKind::pointwise || has_axis_role(*node.op)) return true;
    if (node.op->kernel != KernelKind::composite) return false;
    std::vector<TensorType> types;
    for (Value v : node.operands) {
      if (!v) return false;
      types.push_back(graph_.type(v));
    }
    return expands_pointwise(node, types);
  }

  std::vector<Placed> place(NodeId id, const Node& node) {
    if (is(node, "parameter")) return {place_parameter(id, node)};
    if (is(node, "transpose")) {
      const Placed& x = at(node.operands[0]);
      return {{x.value, compose(x.pending, node.attributes.ints("permutation"))}};
    }
    // The operands of the first one's rank share its axes: the first pending permutation among them, which stems from a
    // channels-last op, is taken for all.
    const size_t axes = node.operands.empty() ? 0 : rank(node.operands[0]);
    Ints pending = identity(axes);
    if (moves_with_its_operands(node))
      for (Value v : node.operands)
        if (v && rank(v) == axes && is_identity(pending)) pending = at(v).pending;

    std::vector<Value> operands;
    for (Value v : node.operands)
      operands.push_back(!v ? Value{} : rank(v) == axes ? with_pending(v, pending) : in_place(v));
    std::vector<Placed> results;
    for (Value v : b_.call_all(*node.op, std::move(operands), moved_attributes(node, pending))) {
      const size_t r = b_.shape(v).size();
      results.push_back({v, r == axes ? pending : identity(r)});
    }
    return results;
  }

  const Graph& graph_;
  const std::vector<std::vector<NodeId>> users_;
  Builder b_;
  std::vector<std::vector<Placed>> placed_;
};

}  // namespace

Graph choose_layouts(const Graph& graph) {
  const bool any = std::ranges::any_of(graph.nodes(), [](const Node& node) { return is(node, "transpose"); });
  return any ? LayoutChooser(graph).run() : graph;
}

}  // namespace halfstep
