#include "passes/rewrite/canonicalise.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "passes/rewrite/rules.h"
#include "passes/rewrite/simplify.h"

namespace halfstep {
namespace {

using Context = RuleContext;

// ---- operands ----

// Whether `v` is a constant or weight, moved or not.
bool is_weight(const Graph& graph, Value v) {
  const Node* node = &graph.node(v);
  while (node->op->kernel == KernelKind::movement && node->operands.size() == 1) node = &graph.node(node->operands[0]);
  return is(*node, "constant") || is(*node, "parameter") || is(*node, "state");
}

Value weight_second(const Context& c) {
  if (!is(c.node, "add") && !is(c.node, "mul")) return {};
  const Graph& graph = c.builder.graph();
  if (!is_weight(graph, c.operands[0]) || is_weight(graph, c.operands[1])) return {};
  return c.builder.call(c.node.op->name, {c.operands[1], c.operands[0]});
}

// 1 / x has an operator of its own.
Value quotient_of_one(const Context& c) {
  if (!is(c.node, "div") || !is_floating(c.node.results[0].dtype)) return {};
  return splat(c.builder.graph(), c.operands[0]) == 1.0 && c.builder.type(c.operands[1]) == c.node.results[0]
             ? c.builder.unary("reciprocal", c.operands[1])
             : Value{};
}

Value equal_elements(const Context& c) {
  if (!is(c.node, "constant") || c.node.results[0].element_count() < 2) return {};
  const Tensor& tensor = c.node.attributes.tensor("value");
  const auto size = static_cast<std::ptrdiff_t>(size_of(tensor.type.dtype));
  if (!std::equal(tensor.data.begin() + size, tensor.data.end(), tensor.data.begin())) return {};
  Tensor one(TensorType{tensor.type.dtype, {}});
  std::copy_n(tensor.data.begin(), size, one.data.begin());
  return c.builder.broadcast(c.builder.constant(one), tensor.type.shape);
}

// ---- the order of movements ----

// reshape(transpose(x)) that splits axes: they are split first.
Value split_before_transpose(const Context& c) {
  if (!is(c.node, "reshape") || !is(c.maker(0), "transpose")) return {};
  const Node transpose = c.maker(0);
  const Shape& to = c.node.results[0].shape;
  const std::optional<AxisSplit> split = split_axes(transpose.results[0].shape, to);
  if (!split) return {};
  const Ints position = inverse(transpose.attributes.ints("permutation"));  // of x's axes in the transposed value
  Shape shape;
  Ints permutation(to.size());
  for (int64_t transposed : position)
    for (size_t axis : (*split)[static_cast<size_t>(transposed)]) {
      permutation[axis] = static_cast<int64_t>(shape.size());
      shape.push_back(to[axis]);
    }
  return c.builder.transpose(c.builder.reshape(transpose.operands[0], shape), permutation);
}

// transpose(reshape(x)) that merges axes: they are merged last.
Value merge_after_transpose(const Context& c) {
  if (!is(c.node, "transpose") || !is(c.maker(0), "reshape")) return {};
  const Value v = permuted_axes(c.builder, c.operands[0], c.node.attributes.ints("permutation"));
  return is(c.builder.graph().node(v), "reshape") ? v : Value{};
}

Value slice_before_transpose(const Context& c) {
  if (!is(c.node, "slice") || !is(c.maker(0), "transpose")) return {};
  const Node transpose = c.maker(0);
  const Ints permutation = transpose.attributes.ints("permutation"), back = inverse(permutation);
  const auto placed = [&](const char* name) { return permuted(c.node.attributes.ints(name), back); };
  return c.builder.transpose(
      c.builder.slice(transpose.operands[0], placed("starts"), placed("limits"), placed("steps")), permutation);
}

// slice(reshape(x)) where each axis of x splits into axes of which the first alone is cut.
Value slice_before_split(const Context& c) {
  if (!is(c.node, "slice") || !is(c.maker(0), "reshape")) return {};
  const Node reshape = c.maker(0);
  const Shape from = c.builder.shape(reshape.operands[0]), to = reshape.results[0].shape;
  const std::optional<AxisSplit> split = split_axes(from, to);
  if (!split) return {};
  const Ints &starts = c.node.attributes.ints("starts"), &limits = c.node.attributes.ints("limits"),
             &steps = c.node.attributes.ints("steps");
  const auto is_whole = [&](size_t axis) { return starts[axis] == 0 && limits[axis] == to[axis] && steps[axis] == 1; };
  Ints first(from.size(), 0), limit = from;
  std::vector<char> covered(to.size(), 0);
  for (size_t i = 0; i < from.size(); ++i) {
    int64_t inner = from[i];
    bool cut = false;
    for (size_t axis : (*split)[i]) {
      covered[axis] = 1;
      inner /= to[axis];
      if (is_whole(axis)) {
        cut |= to[axis] != 1;
        continue;
      }
      if (cut || steps[axis] != 1) return {};
      first[i] = starts[axis] * inner, limit[i] = limits[axis] * inner;
      cut = true;
    }
  }
  for (size_t axis = 0; axis < to.size(); ++axis)
    if (!covered[axis] && !is_whole(axis)) return {};
  return c.builder.reshape(c.builder.slice(reshape.operands[0], first, limit), c.node.results[0].shape);
}

// Whether `v` is made of the results of a reduction, element by element.
bool is_statistic(const Graph& graph, Value v) {
  constexpr int kDeepest = 8;
  for (int depth = 0; depth < kDeepest; ++depth) {
    const Node& node = graph.node(v);
    if (node.op->kernel == KernelKind::reduction) return true;
    if (node.op->kernel != KernelKind::pointwise) return false;
    const auto open = std::ranges::find_if(node.operands, [&](Value operand) { return !splat(graph, operand); });
    if (open == node.operands.end()) return false;
    v = *open;
  }
  return false;
}

// Arithmetic on what a reduction gives is done before its axes of size 1 are dropped, since they often come back.
Value squeeze_after_arithmetic(const Context& c) {
  if (c.node.op->kernel != KernelKind::pointwise) return {};
  Builder& b = c.builder;
  const auto axes_dropped = [](Shape shape) {
    std::erase(shape, 1);
    return shape;
  };
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const Node& reshape = c.maker(i);
    if (!is(reshape, "reshape") || !is_statistic(b.graph(), reshape.operands[0])) continue;
    const Shape from = b.shape(reshape.operands[0]), to = reshape.results[0].shape;
    if (from.size() <= to.size() || axes_dropped(from) != axes_dropped(to)) continue;
    std::vector<Value> operands;
    for (Value operand : c.operands) {
      const std::optional<double> number = splat(b.graph(), operand);
      operands.push_back(number ? b.broadcast(b.constant(b.dtype(operand), *number), from)
                                : reshaped(b, operand, from));
    }
    return b.reshape(b.call_all(*c.node.op, std::move(operands), c.node.attributes).front(), to);
  }
  return {};
}

// ---- linear layers ----

// Whether `v` is a matrix product, reshaped or its rows moved.
bool is_product(const Graph& graph, Value v) {
  const Node* node = &graph.node(v);
  while (is(*node, "reshape") || is(*node, "transpose")) node = &graph.node(node->operands[0]);
  return is(*node, "matmul") && node->results[0].shape.size() == 2;
}

bool keeps_last_axis(const Node& movement, const Shape& from) {
  const Shape& to = movement.results[0].shape;
  if (from.empty() || to.empty() || from.back() != to.back()) return false;
  return is(movement, "reshape") || (is(movement, "transpose") && movement.attributes.ints("permutation").back() + 1 ==
                                                                      static_cast<int64_t>(from.size()));
}

// add(reshape(y), bias) and add(transpose(y), bias) of a matrix product's rows: the bias is added to y.
Value bias_before_movement(const Context& c) {
  if (!is(c.node, "add") || !is(c.maker(1), "broadcast")) return {};
  Builder& b = c.builder;
  const Value bias = c.maker(1).operands[0];
  if (c.maker(0).operands.size() != 1 || !is_product(b.graph(), c.maker(0).operands[0])) return {};
  const Node movement = c.maker(0);
  const Shape from = b.shape(movement.operands[0]);
  if (!keeps_last_axis(movement, from) || b.type(bias).element_count() != b.shape(bias).back()) return {};
  const Value sum = b.add(movement.operands[0], b.reshape(bias, {b.shape(bias).back()}));
  return b.call_all(*movement.op, {sum}, movement.attributes).front();
}

// matmul(reshape(transpose(x)), w), where rows are made of permuted axes of x: the rows of the result are permuted.
Value rows_in_order(const Context& c) {
  if (!is(c.node, "matmul") || c.operands.size() != 2 || c.node.results[0].shape.size() != 2 ||
      c.node.attributes.integer("transpose_a") != 0 || !is(c.maker(0), "reshape"))
    return {};
  Builder& b = c.builder;
  const Node reshape = c.maker(0), transpose = b.graph().node(reshape.operands[0]);
  if (!is(transpose, "transpose")) return {};
  const std::optional<AxisSplit> split = split_axes(reshape.results[0].shape, transpose.results[0].shape);
  if (!split || (*split)[0].empty()) return {};
  const Ints& permutation = transpose.attributes.ints("permutation");
  const auto rows = static_cast<std::ptrdiff_t>((*split)[0].size());
  Ints row_axes(permutation.begin(), permutation.begin() + rows);
  if (std::ranges::is_sorted(row_axes)) return {};
  Ints sorted = permutation, moved(row_axes.size() + 1);
  std::sort(sorted.begin(), sorted.begin() + rows);
  for (size_t i = 0; i < row_axes.size(); ++i)
    moved[i] = std::find(sorted.begin(), sorted.begin() + rows, row_axes[i]) - sorted.begin();
  moved.back() = static_cast<int64_t>(rows);
  const Value x = b.transpose(transpose.operands[0], sorted);
  Shape apart = b.shape(x);
  apart.resize(row_axes.size());
  const Value y = b.call_all(*c.node.op, {b.reshape(x, reshape.results[0].shape), c.operands[1]}, c.node.attributes)[0];
  apart.push_back(c.node.results[0].shape[1]);
  return b.reshape(b.transpose(b.reshape(y, apart), moved), c.node.results[0].shape);
}

constexpr Rule kRules[] = {
    quotient_of_one,        weight_second,      equal_elements,       split_before_transpose, merge_after_transpose,
    slice_before_transpose, slice_before_split, bias_before_movement, rows_in_order,          squeeze_after_arithmetic,
};

// Weights that are only read [in, out] by matrix products.
std::map<NodeId, Ints> transposed_weights(const Graph& graph) {
  const std::vector<std::vector<NodeId>> users = graph.users();
  std::map<NodeId, Ints> result;
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& leaf = graph.node(id);
    if (!is(leaf, "parameter") || leaf.results[0].shape.size() != 2) continue;
    const auto reads_in_out = [&](NodeId user) {
      const Node& node = graph.node(user);
      return is(node, "matmul") && node.operands[0].node != id && node.operands[1].node == id &&
             node.attributes.integer("transpose_b") == 0;
    };
    const auto& readers = users[static_cast<size_t>(id)];
    const bool is_output =
        std::ranges::any_of(graph.outputs(), [&](const NamedValue& o) { return o.value.node == id; });
    if (readers.empty() || is_output || !std::ranges::all_of(readers, reads_in_out)) continue;
    const Ints stored = leaf.attributes.ints("permutation");
    const Ints permutation = compose(stored.empty() ? Ints{0, 1} : stored, {1, 0});
    result[id] = is_identity(permutation) ? Ints() : permutation;
  }
  return result;
}

Graph store_out_in(const Graph& graph) {
  const std::map<NodeId, Ints> transposed = transposed_weights(graph);
  if (transposed.empty()) return graph;
  NodeId at = 0;
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    const NodeId id = at++;
    if (const auto found = transposed.find(id); found != transposed.end()) {
      const TensorType& type = node.results[0];
      return {b.parameter(node.attributes.text("name"), {type.dtype, {type.shape[1], type.shape[0]}}, found->second)};
    }
    if (!is(node, "matmul") || !transposed.contains(node.operands[1].node)) return {};
    Attributes attributes = node.attributes;
    attributes.set("transpose_b", int64_t{1});
    return b.call_all(*node.op, {operands[0], operands[1]}, std::move(attributes));
  });
}

}  // namespace

Graph canonicalise(const Graph& graph) {
  std::vector<Rule> rules(std::begin(kRules), std::end(kRules));
  const std::span<const Rule> algebra = simplify_rules();
  rules.insert(rules.end(), algebra.begin(), algebra.end());
  return store_out_in(apply_rules(graph, rules));
}

}  // namespace halfstep
