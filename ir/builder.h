// Builder: the only maker of nodes. Every node is checked against its row and interned: the same op on the same
// operands with the same attributes is one node (random ops carry a site number, leaves a name, so that they stay
// apart).
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/op.h"

namespace halfstep {

class Builder {
 public:
  explicit Builder(std::string name);
  Builder(Builder&&) = default;  // a copy would write to the same nodes

  // Throws Error naming the op and the current origin if the operands or attributes do not fit the row.
  std::vector<Value> call_all(const Op& op, std::vector<Value> operands, Attributes attributes = {});
  Value call(std::string_view op, std::vector<Value> operands, Attributes attributes = {});  // the first result
  // `node` of the graph `from` on other operands, one for each of its own. Its type rule is not asked again where their
  // types are the same.
  NodeId copy(const Graph& from, const Node& node, std::span<const Value> operands);
  // What is built from here on, the first node, is likely `base` again: as long as it is, the nodes are shared with it.
  void follow(const Graph& base);

  // By value: the next node made may move the graph's storage.
  TensorType type(Value v) const { return graph_.type(v); }
  Shape shape(Value v) const { return graph_.type(v).shape; }
  DType dtype(Value v) const { return graph_.type(v).dtype; }
  const Graph& graph() const { return graph_; }

  // The origin given to the nodes made from here on.
  const Origin& origin() const { return origin_; }
  void set_origin(Origin origin) { origin_ = std::move(origin); }

  // Leaves. A parameter's name is that of its ONNX initializer.
  Value input(const Name& name, TensorType type);
  Value parameter(std::string name, TensorType type, Ints permutation = {});
  Value state(const Name& name, TensorType type);
  Value constant(Tensor value);
  Value constant(DType dtype, double value) { return constant(Tensor::scalar(dtype, value)); }
  // A constant of x's element type, broadcast to x's shape.
  Value constant_like(Value x, double value);

  // Arithmetic with numpy broadcasting; operands of different floating types promote to the wider.
  Value add(Value x, Value y) { return binary("add", x, y); }
  Value sub(Value x, Value y) { return binary("sub", x, y); }
  Value mul(Value x, Value y) { return binary("mul", x, y); }
  Value div(Value x, Value y) { return binary("div", x, y); }
  Value mul(Value x, double y) { return mul(x, constant_like(x, y)); }
  Value add(Value x, double y) { return add(x, constant_like(x, y)); }
  Value binary(std::string_view op, Value x, Value y);
  Value unary(std::string_view op, Value x) { return call(op, {x}); }
  Value select(Value condition, Value if_true, Value if_false);
  Value cast(Value x, DType to);  // x itself if it has that type

  // Movement. Each returns x itself where nothing would change.
  Value reshape(Value x, Shape shape);
  Value transpose(Value x, Ints permutation);
  Value broadcast(Value x, Shape shape);  // numpy rules: leading axes are added, ones are repeated
  Value slice(Value x, Ints starts, Ints limits, Ints steps = {});
  Value reduce(std::string_view op, Value x, Ints axes);  // keeps the axes with size 1
  // The cotangent of broadcast: sums to `shape`.
  Value sum_to(Value x, const Shape& shape);
  // A region as one node; its inputs in node order are the operands.
  std::vector<Value> fused(std::vector<Value> operands, Graph body);
  Value matmul(Value a, Value b, Attributes attributes = {}) { return call("matmul", {a, b}, std::move(attributes)); }

  void output(Name name, Value value);
  void update(Value state, Value value);

  // Drops what neither an output nor an update needs (inputs stay).
  Graph finish() &&;

 private:
  NodeId intern(Node node);
  void grow_interned(size_t size);
  // While the graph is the beginning of `base_`: the node just made or the next of these, if it is `node` on
  // `operands`; else -1.
  NodeId followed(const Node& node, std::span<const Value> operands);
  void leave_base();

  Graph graph_;
  Origin origin_;
  Graph base_;                                // the graph that is followed
  std::shared_ptr<std::vector<Node>> nodes_;  // of the graph; null as long as it is the beginning of `base_`
  std::vector<size_t> hashes_;                // of the nodes; none as long as that
  std::vector<NodeId> interned_;              // by hash, open addressing: a power of two of slots, -1 where empty
};

// Sets the builder's origin for a scope.
class OriginScope {
 public:
  OriginScope(Builder& builder, Origin origin) : builder_(builder), before_(builder.origin()) {
    builder_.set_origin(std::move(origin));
  }
  ~OriginScope() { builder_.set_origin(std::move(before_)); }
  OriginScope(const OriginScope&) = delete;
  OriginScope& operator=(const OriginScope&) = delete;

 private:
  Builder& builder_;
  Origin before_;
};

// Rebuilds a graph node by node. `rewrite` gets each node with its operands already mapped and returns the results that
// stand for it; an empty vector copies the node. Origins, outputs and updates are kept.
using NodeRewrite = std::function<std::vector<Value>(Builder&, const Node&, std::span<const Value>)>;
Graph rewrite(const Graph& graph, const NodeRewrite& rewrite_node);

// What stands for the values of one graph in another; absent until set.
class ValueMap {
 public:
  explicit ValueMap(const Graph& graph);

  Value operator()(Value v) const { return v ? values_[index(v)] : v; }
  Value& at(Value v) { return values_[index(v)]; }
  std::span<const Value> at(NodeId id) const { return {values_.begin() + first(id), values_.begin() + first(id + 1)}; }
  std::span<Value> at(NodeId id) { return {values_.begin() + first(id), values_.begin() + first(id + 1)}; }
  void set(NodeId id, std::span<const Value> values);

 private:
  int32_t first(NodeId id) const { return first_[static_cast<size_t>(id)]; }
  size_t index(Value v) const { return static_cast<size_t>(first(v.node) + v.result); }

  std::vector<int32_t> first_;  // of each node's results in `values_`, then the end
  std::vector<Value> values_;
};

// Copies all nodes of `graph` into `builder` (its leaves as they are); returns what stands for their values.
ValueMap copy_nodes(const Graph& graph, Builder& builder, const NodeRewrite& rewrite_node = nullptr);
// Instantiates `graph` with its input leaves (in node order) replaced by `arguments`; returns its outputs' values.
std::vector<Value> inline_graph(const Graph& graph, Builder& builder, std::span<const Value> arguments);

}  // namespace halfstep
