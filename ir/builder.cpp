#include "ir/builder.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"

namespace halfstep {
namespace {

size_t combine(size_t seed, size_t value) { return seed ^ (value + 0x9e3779b97f4a7c15ull + (seed << 6) + (seed >> 2)); }

size_t hash_of(const Attribute& attribute) {
  struct Visitor {
    size_t operator()(int64_t v) const { return std::hash<int64_t>()(v); }
    size_t operator()(double v) const { return std::bit_cast<uint64_t>(v); }
    size_t operator()(const std::string& v) const { return std::hash<std::string>()(v); }
    size_t operator()(DType v) const { return static_cast<size_t>(v); }
    size_t operator()(const Ints& v) const {
      size_t seed = v.size();
      for (int64_t i : v) seed = combine(seed, std::hash<int64_t>()(i));
      return seed;
    }
    size_t operator()(const Tensor& v) const {
      const std::string_view bytes(reinterpret_cast<const char*>(v.data.data()), v.data.size());
      return combine(static_cast<size_t>(v.type.dtype), std::hash<std::string_view>()(bytes));
    }
    size_t operator()(const Region& v) const { return std::hash<const Graph*>()(v.get()); }
  };
  return std::visit(Visitor(), attribute);
}

size_t hash_of(const Node& node) {
  size_t seed = std::hash<const Op*>()(node.op);
  for (Value v : node.operands) seed = combine(seed, static_cast<size_t>(v.node) * 8 + static_cast<size_t>(v.result));
  for (const auto& [name, value] : node.attributes) seed = combine(seed, hash_of(value));
  return seed;
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

// The name of a result is only made for an error: every node comes through here in every pass.
void check_sizes(std::span<const TensorType> results) {
  for (const TensorType& type : results) {
    int64_t count = 1;
    bool fits = true;
    for (int64_t d : type.shape) fits &= d >= 0 && !__builtin_mul_overflow(count, d, &count);
    if (!fits) checked_element_count(type.shape, "result " + to_string(type));
  }
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
  const size_t hash = hash_of(node);
  NodeId id = -1;
  for (auto [it, end] = interned_.equal_range(hash); it != end && id < 0; ++it) {
    const Node& other = graph_.node(it->second);
    if (other.op == node.op && other.operands == node.operands && other.attributes == node.attributes &&
        other.results == node.results)
      id = it->second;
  }
  if (id < 0) {
    id = graph_.size();
    graph_.nodes_.push_back(std::move(node));
    interned_.emplace(hash, id);
  }
  std::vector<Value> results(graph_.node(id).results.size());
  for (size_t i = 0; i < results.size(); ++i) results[i] = {id, static_cast<int32_t>(i)};
  return results;
}

Value Builder::call(std::string_view name, std::vector<Value> operands, Attributes attributes) {
  return call_all(op(name), std::move(operands), std::move(attributes)).front();
}

Value Builder::input(std::string name, TensorType type) {
  return call("input", {}, {{"name", std::move(name)}, {"dtype", type.dtype}, {"shape", type.shape}});
}

Value Builder::parameter(std::string name, TensorType type, Ints permutation) {
  return call("parameter", {},
              {{"name", std::move(name)},
               {"dtype", type.dtype},
               {"shape", type.shape},
               {"permutation", std::move(permutation)}});
}

Value Builder::state(std::string name, TensorType type) {
  return call("state", {}, {{"name", std::move(name)}, {"dtype", type.dtype}, {"shape", type.shape}});
}

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

void Builder::output(std::string name, Value value) { graph_.outputs_.push_back({std::move(name), value}); }
void Builder::update(Value state, Value value) {
  require(type(state) == type(value), "an update has its state's type");
  graph_.updates_.push_back({state, value});
}

Graph Builder::finish() && {
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
  std::vector<NodeId> renumbered(live.size(), -1);
  std::vector<Node> kept;
  kept.reserve(static_cast<size_t>(std::ranges::count(live, 1)));
  for (size_t i = 0; i < live.size(); ++i)
    if (live[i]) {
      renumbered[i] = static_cast<NodeId>(kept.size());
      kept.push_back(std::move(graph_.nodes_[i]));
    }
  const auto move_to = [&](Value& v) {
    if (v) v.node = renumbered[static_cast<size_t>(v.node)];
  };
  for (Node& node : kept)
    for (Value& v : node.operands) move_to(v);
  for (NamedValue& o : graph_.outputs_) move_to(o.value);
  for (StateUpdate& u : graph_.updates_) move_to(u.state), move_to(u.value);
  graph_.nodes_ = std::move(kept);
  interned_.clear();
  return std::move(graph_);
}

ValueMap copy_nodes(const Graph& graph, Builder& builder, const NodeRewrite& rewrite_node) {
  ValueMap map(graph.nodes().size());
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    std::vector<Value> operands;
    for (Value v : node.operands)
      operands.push_back(v ? map[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)] : Value{});
    OriginScope scope(builder, node.origin);
    std::vector<Value> results;
    if (rewrite_node) results = rewrite_node(builder, node, operands);
    if (results.empty()) results = builder.call_all(*node.op, std::move(operands), node.attributes);
    map[static_cast<size_t>(id)] = std::move(results);
  }
  return map;
}

Graph rewrite(const Graph& graph, const NodeRewrite& rewrite_node) {
  Builder builder(graph.name());
  const ValueMap map = copy_nodes(graph, builder, rewrite_node);
  const auto mapped = [&](Value v) { return map[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)]; };
  for (const NamedValue& o : graph.outputs()) builder.output(o.name, mapped(o.value));
  for (const StateUpdate& u : graph.updates()) builder.update(mapped(u.state), mapped(u.value));
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
  for (const NamedValue& o : graph.outputs())
    results.push_back(map[static_cast<size_t>(o.value.node)][static_cast<size_t>(o.value.result)]);
  return results;
}

}  // namespace halfstep
