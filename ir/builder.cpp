#include "ir/builder.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/checked.h"
#include "base/combine_hashes.h"
#include "base/error.h"

namespace halfstep {
namespace {

constexpr size_t kFewestSlots = 64;  // a power of two

size_t hash_of(const Node& node) {
  size_t seed = std::hash<const Op*>()(node.op);
  for (Value v : node.operands) seed = combine(seed, static_cast<size_t>(v.node) * 8 + static_cast<size_t>(v.result));
  return combine(seed, node.attributes.hash());
}

// Whether `made` is `node` on `operands`.
bool is_same(const Node& made, const Node& node, std::span<const Value> operands) {
  return made.op == node.op && std::ranges::equal(made.operands, operands) && made.attributes == node.attributes &&
         made.results == node.results;
}

// Nodes that are made one after the other repeat types and attributes: `node` shares those of the last ones that it has
// too, so that many nodes take little memory and copies of them touch little.
void share_with_last(std::span<const Node> made, Node& node) {
  constexpr size_t kLast = 8;
  bool results = false, attributes = node.attributes.empty();
  for (size_t i = 0; i < std::min(made.size(), kLast) && !(results && attributes); ++i) {
    const Node& other = made[made.size() - 1 - i];
    if (!results && other.results == node.results) {
      node.results = other.results;
      results = true;
    }
    if (!attributes && other.op == node.op && other.attributes == node.attributes) {
      node.attributes = other.attributes;
      attributes = true;
    }
  }
}

void check_operands(const Op& op, std::span<const Value> operands, const Graph& graph) {
  size_t required = 0, most = op.operands.size();
  for (const OperandSpec& spec : op.operands) {
    if (spec.arity == OperandSpec::one) ++required;
    if (spec.arity == OperandSpec::variadic) most = SIZE_MAX;
  }
  if (operands.size() < required || operands.size() > most)
    throw Error(std::to_string(operands.size()) + " operands given, " + std::to_string(required) + " expected");
  for (size_t i = 0; i < operands.size(); ++i) {
    const OperandSpec& spec = op.operands[std::min(i, op.operands.size() - 1)];
    if (!operands[i] && spec.arity != OperandSpec::optional)
      throw Error("operand '" + std::string(spec.name) + "' is missing");
    require(!operands[i] || (operands[i].node < graph.size() &&
                             operands[i].result < static_cast<int32_t>(graph.node(operands[i]).results.size())),
            "an operand belongs to another graph");
  }
}

void check_attributes(const Op& op, Attributes& attributes) {
  for (const auto& [name, value] : attributes) {
    const auto spec = std::find_if(op.attributes.begin(), op.attributes.end(),
                                   [&, &n = name](const AttributeSpec& s) { return s.name == n; });
    if (spec == op.attributes.end()) throw Error("no attribute '" + name + "'");
    if (spec->default_value.index() != value.index()) throw Error("attribute '" + name + "' is of another kind");
  }
  for (const AttributeSpec& spec : op.attributes)
    if (!attributes.find(spec.name)) {
      if (spec.need == AttributeSpec::required) throw Error("attribute '" + std::string(spec.name) + "' is missing");
      attributes.set(spec.name, spec.default_value);
    }
}

Attributes declared(const Name& leaf, const TensorType& type) {
  return {{"name", leaf.text}, {"role", std::string(name(leaf.role))}, {"dtype", type.dtype}, {"shape", type.shape}};
}

// The name of a result is only made for an error: every node comes through here in every pass.
void check_sizes(std::span<const TensorType> results) {
  for (const TensorType& type : results)
    if (!fits(type.shape)) checked_element_count(type.shape, "result " + to_string(type));
}

}  // namespace

Builder::Builder(std::string name) { graph_.name_ = std::move(name); }

std::vector<Value> Builder::call_all(const Op& op, std::vector<Value> operands, Attributes attributes) {
  Node node{&op, std::move(operands), std::move(attributes), {}, origin_};
  try {
    check_operands(op, node.operands, graph_);
    check_attributes(op, node.attributes);
    std::vector<const TensorType*> types;
    for (Value v : node.operands) types.push_back(v ? &graph_.type(v) : nullptr);
    node.results = op.type({node.attributes, types});
    check_sizes(node.results);
  } catch (const Error& e) {
    throw Error(std::string(op.name) + (origin_.name.empty() ? "" : " '" + to_string(origin_) + "'") + ": " + e.what());
  }
  share_with_last(graph_.nodes(), node);
  const NodeId id = intern(std::move(node));
  std::vector<Value> results(graph_.node(id).results.size());
  for (size_t i = 0; i < results.size(); ++i) results[i] = {id, static_cast<int32_t>(i)};
  return results;
}

NodeId Builder::copy(const Graph& from, const Node& node, std::span<const Value> operands) {
  if (const NodeId id = followed(node, operands); id >= 0) return id;
  bool same_types = true;
  for (size_t i = 0; i < operands.size() && same_types; ++i)
    same_types = static_cast<bool>(operands[i]) == static_cast<bool>(node.operands[i]) &&
                 (!operands[i] || graph_.type(operands[i]) == from.type(node.operands[i]));
  if (!same_types) return call_all(*node.op, {operands.begin(), operands.end()}, node.attributes).front().node;
  return intern({node.op, {operands.begin(), operands.end()}, node.attributes, node.results, origin_});
}

void Builder::follow(const Graph& base) {
  require(graph_.size() == 0, "a graph is followed from its first node on");
  base_ = base;
  graph_.storage_ = base.storage_;
}

NodeId Builder::followed(const Node& node, std::span<const Value> operands) {
  if (nodes_) return -1;
  const NodeId next = graph_.size();
  if (next > 0 && is_same(base_.node(next - 1), node, operands)) return next - 1;
  if (next == base_.size() || base_.node(next).origin != origin_ || !is_same(base_.node(next), node, operands))
    return -1;
  graph_.nodes_ = base_.nodes().first(static_cast<size_t>(next) + 1);
  return next;
}

void Builder::leave_base() {
  nodes_ = std::make_shared<std::vector<Node>>();
  nodes_->reserve(base_.nodes().size());  // growing piece by piece would copy each time
  nodes_->assign(graph_.nodes().begin(), graph_.nodes().end());
  graph_.storage_ = nodes_, graph_.nodes_ = *nodes_;
}

NodeId Builder::intern(Node node) {
  if (const NodeId id = followed(node, node.operands); id >= 0) return id;
  if (!nodes_) {
    leave_base();
    hashes_.reserve(base_.nodes().size());
    for (const Node& made : *nodes_) hashes_.push_back(hash_of(made));
    grow_interned(std::bit_ceil(base_.nodes().size() * 2 + 2));
  }
  const size_t hash = hash_of(node);
  if (nodes_->size() * 2 >= interned_.size()) grow_interned(2 * interned_.size());
  size_t slot = hash & (interned_.size() - 1);
  for (; interned_[slot] >= 0; slot = (slot + 1) & (interned_.size() - 1)) {
    const NodeId id = interned_[slot];
    if (hashes_[static_cast<size_t>(id)] == hash && is_same(graph_.node(id), node, node.operands)) return id;
  }
  const NodeId id = graph_.size();
  interned_[slot] = id;
  hashes_.push_back(hash);
  nodes_->push_back(std::move(node));
  graph_.nodes_ = *nodes_;
  return id;
}

void Builder::grow_interned(size_t size) {
  interned_.assign(std::max(size, kFewestSlots), -1);
  for (NodeId id = 0; id < graph_.size(); ++id) {
    size_t slot = hashes_[static_cast<size_t>(id)] & (interned_.size() - 1);
    while (interned_[slot] >= 0) slot = (slot + 1) & (interned_.size() - 1);
    interned_[slot] = id;
  }
}

Value Builder::call(std::string_view name, std::vector<Value> operands, Attributes attributes) {
  return call_all(op(name), std::move(operands), std::move(attributes)).front();
}

Value Builder::input(const Name& name, TensorType type) { return call("input", {}, declared(name, type)); }

Value Builder::parameter(std::string name, TensorType type, Ints permutation) {
  return call("parameter", {},
              {{"name", std::move(name)},
               {"dtype", type.dtype},
               {"shape", type.shape},
               {"permutation", std::move(permutation)}});
}

Value Builder::state(const Name& name, TensorType type) { return call("state", {}, declared(name, type)); }

Value Builder::constant(Tensor value) { return call("constant", {}, {{"value", std::move(value)}}); }

Value Builder::constant_like(Value x, double value) { return broadcast(constant(dtype(x), value), shape(x)); }

Value Builder::binary(std::string_view name, Value x, Value y) {
  const Shape sx = shape(x), sy = shape(y);
  Shape joint(std::max(sx.size(), sy.size()), 1);
  for (size_t i = 0; i < joint.size(); ++i) {
    const int64_t a = i < sx.size() ? sx[sx.size() - 1 - i] : 1, b = i < sy.size() ? sy[sy.size() - 1 - i] : 1;
    if (a != b && a != 1 && b != 1)
      throw Error(std::string(name) + (origin_.name.empty() ? "" : " '" + to_string(origin_) + "'") + ": shapes " +
                  to_string(sx) + " and " + to_string(sy) + " do not broadcast");
    joint[joint.size() - 1 - i] = a == 1 ? b : a;
  }
  if (dtype(x) != dtype(y) && is_floating(dtype(x)) && is_floating(dtype(y))) {
    const DType wide = size_of(dtype(x)) == size_of(dtype(y))  ? DType::f32
                       : size_of(dtype(x)) > size_of(dtype(y)) ? dtype(x)
                                                               : dtype(y);
    x = cast(x, wide), y = cast(y, wide);
  }
  return call(name, {broadcast(x, joint), broadcast(y, joint)});
}

Value Builder::select(Value condition, Value if_true, Value if_false) {
  Shape joint = shape(condition);
  for (Value v : {if_true, if_false})
    if (shape(v).size() > joint.size() ||
        (shape(v).size() == joint.size() && type(v).element_count() > TensorType{DType::u8, joint}.element_count()))
      joint = shape(v);
  return call("select", {broadcast(condition, joint), broadcast(if_true, joint), broadcast(if_false, joint)});
}

Value Builder::cast(Value x, DType to) { return dtype(x) == to ? x : call("cast", {x}, {{"to", to}}); }

Value Builder::reshape(Value x, Shape to) {
  return shape(x) == to ? x : call("reshape", {x}, {{"shape", std::move(to)}});
}

Value Builder::transpose(Value x, Ints permutation) {
  if (std::is_sorted(permutation.begin(), permutation.end()) && permutation.size() == shape(x).size()) return x;
  return call("transpose", {x}, {{"permutation", std::move(permutation)}});
}

Value Builder::broadcast(Value x, Shape to) {
  if (shape(x) == to) return x;
  if (shape(x).size() < to.size()) {
    const Shape from = shape(x);
    Shape padded(to.size() - from.size(), 1);
    padded.insert(padded.end(), from.begin(), from.end());
    x = reshape(x, std::move(padded));
  }
  return shape(x) == to ? x : call("broadcast", {x}, {{"shape", std::move(to)}});
}

Value Builder::slice(Value x, Ints starts, Ints limits, Ints steps) {
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (limits == shape(x) && std::all_of(starts.begin(), starts.end(), [](int64_t s) { return s == 0; }) &&
      std::all_of(steps.begin(), steps.end(), [](int64_t s) { return s == 1; }))
    return x;
  return call("slice", {x},
              {{"starts", std::move(starts)}, {"limits", std::move(limits)}, {"steps", std::move(steps)}});
}

Value Builder::reduce(std::string_view name, Value x, Ints axes) {
  std::erase_if(axes, [&](int64_t a) { return shape(x)[static_cast<size_t>(a)] == 1; });
  return axes.empty() ? x : call(name, {x}, {{"axes", std::move(axes)}});
}

Value Builder::sum_to(Value x, const Shape& to) {
  const size_t added = shape(x).size() - to.size();
  Ints axes;
  for (size_t i = 0; i < shape(x).size(); ++i)
    if (i < added || to[i - added] != shape(x)[i]) axes.push_back(static_cast<int64_t>(i));
  return reshape(axes.empty() ? x : reduce("reduce_sum", x, axes), to);
}

std::vector<Value> Builder::fused(std::vector<Value> operands, Graph body) {
  return call_all(op("fused"), std::move(operands), {{"body", std::make_shared<const Graph>(std::move(body))}});
}

void Builder::output(Name name, Value value) { graph_.outputs_.push_back({std::move(name), value}); }
void Builder::update(Value state, Value value) {
  require(type(state) == type(value), "an update has its state's type");
  graph_.updates_.push_back({state, value});
}

Graph Builder::finish() && {
  if (!nodes_ && graph_.size() == base_.size() && graph_.outputs_ == base_.outputs_ &&
      graph_.updates_ == base_.updates_)
    return std::move(graph_);
  std::vector<char> live(graph_.nodes_.size(), 0);
  const auto mark = [&](Value v) { live[static_cast<size_t>(v.node)] = 1; };
  for (const NamedValue& o : graph_.outputs_) mark(o.value);
  for (const StateUpdate& u : graph_.updates_) mark(u.state), mark(u.value);
  for (NodeId id = graph_.size(); id-- > 0;) {
    const Node& node = graph_.node(id);
    if (node.op->name == "input") live[static_cast<size_t>(id)] = 1;
    if (!live[static_cast<size_t>(id)]) continue;
    for (Value v : node.operands)
      if (v) mark(v);
  }
  const auto kept = static_cast<size_t>(std::ranges::count(live, 1));
  if (kept == live.size()) return std::move(graph_);
  if (!nodes_) leave_base();
  std::vector<NodeId> renumbered(live.size(), -1);
  const auto move_to = [&](Value& v) {
    if (v) v.node = renumbered[static_cast<size_t>(v.node)];
  };
  size_t next = 0;
  for (size_t i = 0; i < live.size(); ++i)
    if (live[i]) {
      renumbered[i] = static_cast<NodeId>(next);
      for (Value& v : (*nodes_)[i].operands) move_to(v);
      if (next != i) (*nodes_)[next] = std::move((*nodes_)[i]);
      ++next;
    }
  nodes_->resize(kept);
  graph_.nodes_ = *nodes_;
  for (NamedValue& o : graph_.outputs_) move_to(o.value);
  for (StateUpdate& u : graph_.updates_) move_to(u.state), move_to(u.value);
  return std::move(graph_);
}

ValueMap::ValueMap(const Graph& graph) {
  first_.reserve(graph.nodes().size() + 1);
  first_.push_back(0);
  for (const Node& node : graph.nodes()) first_.push_back(first_.back() + static_cast<int32_t>(node.results.size()));
  values_.resize(static_cast<size_t>(first_.back()));
}

void ValueMap::set(NodeId id, std::span<const Value> values) {
  const std::span<Value> to = at(id);
  require(values.size() <= to.size(), "what stands for a node has no more results than it");
  std::ranges::copy(values, to.begin());
}

ValueMap copy_nodes(const Graph& graph, Builder& builder, const NodeRewrite& rewrite_node) {
  ValueMap map(graph);
  if (builder.graph().size() == 0) builder.follow(graph);
  const OriginScope scope(builder, builder.origin());
  std::vector<Value> operands;
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    operands = node.operands;
    for (Value& v : operands) v = map(v);
    builder.set_origin(node.origin);
    if (rewrite_node)
      if (const std::vector<Value> results = rewrite_node(builder, node, operands); !results.empty()) {
        map.set(id, results);
        continue;
      }
    const NodeId copy = builder.copy(graph, node, operands);
    const std::span<Value> results = map.at(id);
    for (size_t i = 0; i < results.size(); ++i) results[i] = {copy, static_cast<int32_t>(i)};
  }
  return map;
}

Graph rewrite(const Graph& graph, const NodeRewrite& rewrite_node) {
  Builder builder(graph.name());
  const ValueMap map = copy_nodes(graph, builder, rewrite_node);
  for (const NamedValue& o : graph.outputs()) builder.output(o.name, map(o.value));
  for (const StateUpdate& u : graph.updates()) builder.update(map(u.state), map(u.value));
  return std::move(builder).finish();
}

std::vector<Value> inline_graph(const Graph& graph, Builder& builder, std::span<const Value> arguments) {
  size_t next = 0;
  const ValueMap map = copy_nodes(graph, builder, [&](Builder&, const Node& node, std::span<const Value>) {
    if (node.op->name != "input") return std::vector<Value>();
    require(next < arguments.size(), "one argument for each input of an inlined graph");
    return std::vector<Value>{arguments[next++]};
  });
  std::vector<Value> results;
  for (const NamedValue& o : graph.outputs()) results.push_back(map(o.value));
  return results;
}

}  // namespace halfstep
