#include "passes/rewrite/add_epilogues.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

class AddEpilogues {
 public:
  AddEpilogues(const Graph& graph, ProductRelu relu)
      : graph_(graph), relu_(relu), users_(graph.users()), delivered_(graph.nodes().size(), 0) {
    for (const NamedValue& o : graph.outputs()) delivered_[static_cast<size_t>(o.value.node)] = 1;
    for (const StateUpdate& u : graph.updates()) delivered_[static_cast<size_t>(u.value.node)] = 1;
  }

  Graph run() {
    return rewrite(graph_, [&](Builder& b, const Node& node, std::span<const Value> operands) {
      const NodeId id = next_++;
      if (is(node, "relu") && relu_ == ProductRelu::in_products)
        if (const auto product = lone_product(b, node.operands[0], operands[0]); product && is_matrix(b, *product))
          return with_relu(b, node, *product);
      if (!is(node, "add")) return std::vector<Value>();
      for (const size_t i : {1u, 0u}) {
        const Value other = node.operands[1 - i];
        if (other == node.operands[i]) continue;
        const std::optional<Value> product = lone_product(b, node.operands[i], operands[i]);
        if (!product) continue;
        if (is_bias(other, b.shape(*product).back()) && takes(b, *product, kProductBias))
          return with(b, node, *product, kProductBias, b.graph().node(operands[1 - i]).operands[0]);
        if (is_stored(id) && is_residual(other, node.operands[i]) && takes(b, *product, kProductAddend))
          return with(b, node, *product, kProductAddend, operands[1 - i]);
      }
      return std::vector<Value>();
    });
  }

 private:
  const std::vector<NodeId>& users(NodeId id) const { return users_[static_cast<size_t>(id)]; }
  bool has_one_reader(NodeId id) const { return users(id).size() == 1 && delivered_[static_cast<size_t>(id)] == 0; }

  // The product, in the graph being built, that `made` is or is a reshape of, if nothing else reads it. `v` is what
  // `made` stands for.
  std::optional<Value> lone_product(const Builder& b, Value v, Value made) const {
    while (has_one_reader(v.node) && is(graph_.node(v), "reshape") && is(b.graph().node(made), "reshape"))
      v = graph_.node(v).operands[0], made = b.graph().node(made).operands[0];
    return has_one_reader(v.node) && b.graph().node(made).op->kernel == KernelKind::gemm ? std::optional(made)
                                                                                         : std::nullopt;
  }

  static bool is_matrix(const Builder& b, Value product) {
    return b.shape(product).size() == 2 && b.dtype(product) != DType::f64;
  }
  // What is added behind a relu is no part of what the relu reads.
  static bool takes(const Builder& b, Value product, size_t operand) {
    const Node& node = b.graph().node(product);
    return is_matrix(b, product) && !optional_operand(node, operand) && node.attributes.integer("rectified") == 0;
  }

  // A vector over `columns`, the last axis, the same for all rows. Constants stay: kernels have the small ones inside.
  bool is_bias(Value v, int64_t columns) const {
    const Node& node = graph_.node(v);
    if (!is(node, "broadcast")) return false;
    const TensorType& from = graph_.type(node.operands[0]);
    Value source = node.operands[0];
    while (is(graph_.node(source), "reshape")) source = graph_.node(source).operands[0];
    return !from.shape.empty() && from.shape.back() == columns && node.results[0].shape.back() == columns &&
           from.element_count() == columns && graph_.node(source).op->leaf != Leaf::constant;
  }

  // Whether the value is in memory whatever is fused: kernels that read it behind other calls would not compute it
  // again.
  bool is_stored(NodeId id) const {
    if (delivered_[static_cast<size_t>(id)] != 0 || users(id).size() > 1) return true;
    return std::ranges::any_of(users(id), [&](NodeId user) {
      const Node& node = graph_.node(user);
      return is_library(node) || is_arena(node) || (is(node, "reshape") && is_stored(user));
    });
  }

  // Whether `product` is computed from `v`, or what that is a reshape of, which then is in memory. The nodes between
  // are few: those of a block.
  bool is_residual(Value v, Value product) const {
    constexpr int kMostBetween = 2000;
    while (is(graph_.node(v), "reshape")) v = graph_.node(v).operands[0];
    if (v.node >= product.node || graph_.node(v).op->index_map == IndexMap::repeated) return false;
    std::set<NodeId> open{product.node};  // not before v
    for (int seen = 0; !open.empty() && seen < kMostBetween; ++seen) {
      const NodeId at = *open.rbegin();
      if (at == v.node) return true;
      open.erase(at);
      for (const Value operand : graph_.node(at).operands)
        if (operand && operand.node >= v.node) open.insert(operand.node);
    }
    return false;
  }

  static Origin both(const Origin& product, const Origin& more) {
    const std::string &of_product = *product.name, &name = *more.name;
    const bool one_name = name.empty() || name == of_product;
    return {one_name ? of_product : of_product + " + " + name, product.phase};
  }

  static std::vector<Value> with_relu(Builder& b, const Node& relu, Value product) {
    const Node made = b.graph().node(product);
    const OriginScope scope(b, both(made.origin, relu.origin));
    Attributes attributes = made.attributes;
    attributes.set("rectified", int64_t{1});
    return {b.reshape(b.call_all(*made.op, made.operands, std::move(attributes)).front(), relu.results[0].shape)};
  }

  std::vector<Value> with(Builder& b, const Node& sum, Value product, size_t operand, Value added) const {
    const Node made = b.graph().node(product);
    std::vector<Value> operands = made.operands;
    operands.resize(std::max(operands.size(), operand + 1));
    const OriginScope scope(b, both(made.origin, sum.origin));
    const Shape rows = made.results[0].shape;
    operands[operand] = b.reshape(added, operand == kProductBias ? Shape{rows.back()} : rows);
    return {b.reshape(b.call_all(*made.op, std::move(operands), made.attributes).front(), sum.results[0].shape)};
  }

  const Graph& graph_;
  const ProductRelu relu_;
  const std::vector<std::vector<NodeId>> users_;
  std::vector<char> delivered_;  // as an output or an update
  NodeId next_ = 0;
};

}  // namespace

Graph add_epilogues(const Graph& graph, ProductRelu relu) { return AddEpilogues(graph, relu).run(); }

}  // namespace halfstep
