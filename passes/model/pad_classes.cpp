#include "passes/model/pad_classes.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "base/checked.h"
#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int64_t kFewClasses = 512;

class PadClasses {
 public:
  PadClasses(const Graph& graph, int64_t alignment) : graph_(graph), alignment_(alignment) {
    for (const Node& node : graph.nodes())
      if (is(node, "softmax_cross_entropy") && node.attributes.number("smoothing") == 0) find_product(node.operands[0]);
  }

  Graph run() {
    if (products_.empty()) return graph_;
    return rewrite(graph_, [&](Builder& b, const Node& node, std::span<const Value> operands) {
      return rewritten(b, node, operands);
    });
  }

 private:
  int64_t classes(Value v) const { return graph_.type(v).shape.back(); }
  int64_t padded_size(Value v) const { return round_up(classes(v), alignment_ / size_of(graph_.type(v).dtype)); }

  // A value that has the classes on its last axis, as has the operand that this returns; absent: made in another way.
  Value before(Value v) const {
    const Node& node = graph_.node(v);
    if (is(node, "cast") || is(node, "reshape")) return node.operands[0];
    if (is(node, "add"))
      for (size_t i : {0u, 1u})
        if (per_class(node.operands[1 - i])) return node.operands[i];
    return {};
  }
  // A vector over the classes, the same for all rows.
  bool per_class(Value v) const {
    const Node& node = graph_.node(v);
    if (!is(node, "broadcast")) return false;
    const TensorType& from = graph_.type(node.operands[0]);
    return from.element_count() == from.shape.back() && from.shape.back() == classes(v);
  }

  void find_product(Value logits) {
    const int64_t count = classes(logits);
    for (Value v = logits; v && classes(v) == count; v = before(v)) {
      const Node& node = graph_.node(v);
      if (!is(node, "matmul")) continue;
      const bool is_matrix = graph_.type(v).shape.size() == 2;
      if (is_matrix && count >= kFewClasses && padded_size(v) != count) products_[v.node] = padded_size(v);
      return;
    }
  }

  std::vector<Value> rewritten(Builder& b, const Node& node, std::span<const Value> operands) {
    const NodeId id = next_++;
    const auto padded = [&](size_t i) -> Value {
      const auto found = padded_.find(node.operands[i].node);
      return found == padded_.end() ? Value{} : found->second;
    };
    Value result;
    if (const auto product = products_.find(id); product != products_.end()) {
      const bool transposed = node.attributes.integer("transpose_b");
      result = b.call_all(*node.op, {operands[0], extended(b, operands[1], transposed ? 0 : 1, product->second)},
                          node.attributes)[0];
    } else if (!reads_padded(node)) {
      return {};
    } else if (is(node, "softmax_cross_entropy") && node.attributes.number("smoothing") == 0) {
      return b.call_all(*node.op, {masked(b, padded(0), classes(node.operands[0])), operands[1]}, node.attributes);
    } else if (is(node, "argmax") && node.attributes.integer("axis") + 1 == std::ssize(b.shape(operands[0]))) {
      return b.call_all(*node.op, {masked(b, padded(0), classes(node.operands[0]))}, node.attributes);
    } else {
      result = followed(b, node, operands, padded);
    }
    if (!result) return {};
    padded_[id] = result;
    Ints limits = node.results[0].shape;
    return {b.slice(result, Ints(limits.size(), 0), limits)};
  }

  bool reads_padded(const Node& node) const {
    return std::ranges::any_of(node.operands, [&](Value v) { return v && padded_.contains(v.node); });
  }

  // The node on padded operands; absent where it cannot have them.
  Value followed(Builder& b, const Node& node, std::span<const Value> operands, const auto& padded) {
    const Shape& shape = node.results[0].shape;
    const Value first = padded(0);
    if (is(node, "cast")) return b.call_all(*node.op, {first}, node.attributes)[0];
    if (is(node, "reshape") && !shape.empty() && shape.back() == classes(node.operands[0])) {
      Shape wide = shape;
      wide.back() = b.shape(first).back();
      return b.reshape(first, wide);
    }
    if (!is(node, "add")) return {};
    for (size_t i : {0u, 1u}) {
      const Value x = padded(i);
      if (!x || !per_class(node.operands[1 - i])) continue;
      const Value vector = b.graph().node(operands[1 - i]).operands[0];
      const Shape wide = b.shape(x);
      const size_t axis = b.shape(vector).size() - 1;
      return b.add(x, b.broadcast(extended(b, vector, axis, wide.back()), wide));
    }
    return {};
  }

  static Value masked(Builder& b, Value v, int64_t classes) {
    if (const Node made = b.graph().node(v); is(made, "cast"))
      return b.cast(masked(b, made.operands[0], classes), b.dtype(v));
    const Shape shape = b.shape(v);
    const Value number = b.cast(b.call("iota", {}, {{"shape", shape}, {"axis", std::ssize(shape) - 1}}), DType::i32);
    const Value exists = b.call("less", {number, b.constant_like(number, static_cast<double>(classes))});
    return b.select(exists, v, b.constant_like(v, -std::numeric_limits<double>::infinity()));
  }

  const Graph& graph_;
  const int64_t alignment_;
  std::unordered_map<NodeId, int64_t> products_;  // and their columns with the padding
  std::unordered_map<NodeId, Value> padded_;      // what stands for a node's result, with padding
  NodeId next_ = 0;
};

}  // namespace

Value extended(Builder& b, Value v, size_t axis, int64_t size) {
  if (const Node made = b.graph().node(v); is(made, "cast"))
    return b.cast(extended(b, made.operands[0], axis, size), b.dtype(v));
  const Shape shape = b.shape(v);
  Ints none(shape.size(), 0), high = none;
  high[axis] = size - shape[axis];
  return b.call("pad", {v}, {{"low", none}, {"high", high}, {"interior", none}});
}

Graph pad_classes(const Graph& graph, int64_t alignment) {
  return alignment > 1 ? PadClasses(graph, alignment).run() : graph;
}

}  // namespace halfstep
