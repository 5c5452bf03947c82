#include "passes/model/recognise_loss.h"

#include <algorithm>
#include <numeric>

#include "passes/rewrite/known_values.h"
#include "passes/rewrite/pattern.h"

namespace halfstep {
namespace {

// Rows of classes: x along one axis, row-major in the others.
struct Rows {
  Value x;
  size_t axis;
};

int64_t count_of(const Shape& shape) { return TensorType{DType::u8, shape}.element_count(); }
int64_t inner_count(const Shape& shape, size_t axis) {
  return count_of({shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end()});
}

Value without_reshape(const Graph& graph, Value v) {
  return is(graph.node(v), "reshape") ? graph.node(v).operands[0] : v;
}
Value without_broadcast(const Graph& graph, Value v) {
  return is(graph.node(v), "broadcast") ? graph.node(v).operands[0] : v;
}

// ---- the labels of a choice: one i64 value a row, absent where `v` is no choice of one element of each row ----

// n, if `v` is n with `size` added where it is negative.
Value unwrapped(const Graph& graph, Value v, int64_t size) {
  Captures captures;
  const Pattern n = any(0), wrapped = sum(static_cast<double>(size), {n});
  const bool wraps = matches(graph, v, call("select", {call("less", {n, sum(0, {})}), wrapped, n}), captures);
  return wraps ? captures.values[0] : v;
}

// The term of `number` that is not known, if those that are add to each row's first element.
Value row_term(const Graph& graph, Value number, const Shape& shape, size_t axis) {
  const int64_t inner = inner_count(shape, axis), row = shape[axis] * inner;
  std::vector<double> known(static_cast<size_t>(graph.type(number).element_count()), 0);
  KnownValues constants;
  std::vector<Value> open{number};
  Value unknown;
  while (!open.empty()) {
    const Value term = open.back();
    open.pop_back();
    if (const std::vector<double>* values = constants.of(graph, term)) {
      for (size_t i = 0; i < known.size(); ++i) known[i] += (*values)[i];
    } else if (is(graph.node(term), "add")) {
      open.insert(open.end(), graph.node(term).operands.begin(), graph.node(term).operands.end());
    } else if (unknown) {
      return {};
    } else {
      unknown = term;
    }
  }
  for (size_t i = 0; i < known.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    const int64_t begin = at / inner * row;
    if (known[i] != static_cast<double>(begin + at % inner)) return {};
  }
  return unknown;
}

// gather(reshape(x), number of an element of each row)
Value gathered_labels(Builder& b, const Node& node, const Rows& rows) {
  const Graph& graph = b.graph();
  const Shape shape = b.shape(rows.x), table = b.shape(node.operands[0]);
  const int64_t elements = count_of(shape), inner = inner_count(shape, rows.axis);
  if (without_reshape(graph, node.operands[0]) != rows.x || node.attributes.integer("axis") != 0 || elements == 0 ||
      table.front() != elements || b.type(node.operands[1]).element_count() * shape[rows.axis] != elements)
    return {};
  Value label = row_term(graph, unwrapped(graph, node.operands[1], elements), shape, rows.axis);
  if (!label || inner == 1) return label;
  Captures captures;
  return matches(graph, label, product(static_cast<double>(inner), {any(0)}), captures) ? captures.values[0] : Value{};
}

// Whether `v` numbers the classes.
bool numbers_classes(const Graph& graph, Value v, size_t axis) {
  const auto along = [&](const Node& node) {
    return is(node, "iota") && node.attributes.integer("axis") == static_cast<int64_t>(axis);
  };
  const Value few = without_broadcast(graph, v);
  if (along(graph.node(v)) || along(graph.node(few))) return true;
  const Shape& shape = graph.type(few).shape;
  KnownValues constants;
  const std::vector<double>* values = constants.of(graph, few);
  if (!values || shape[axis] != count_of(shape) || shape[axis] != graph.type(v).shape[axis]) return false;
  for (size_t i = 0; i < values->size(); ++i)
    if ((*values)[i] != static_cast<double>(i)) return false;
  return true;
}

// reduce_sum of x where a class is the label's, and of 0 elsewhere
Value one_hot_labels(Builder& b, const Node& node, const Rows& rows) {
  const Graph& graph = b.graph();
  if (node.attributes.ints("axes") != Ints{static_cast<int64_t>(rows.axis)}) return {};
  const Pattern chosen = kept(3, call("eq", {any(1), any(2)})), zero = sum(0, {}), one = sum(1, {});
  const Pattern choice = either({chosen, call("select", {chosen, one, zero})});
  const Pattern picked =
      either({call("select", {chosen, any(0), zero}), call("mul", {any(0), either({call("cast", {choice}), choice})})});
  Captures captures;
  if (!matches(graph, node.operands[0], picked, captures) || captures.values[0] != rows.x) return {};
  for (const auto& [classes, labels] :
       {std::pair(captures.values[1], captures.values[2]), std::pair(captures.values[2], captures.values[1])}) {
    const Value each = without_broadcast(graph, labels);
    if (numbers_classes(graph, classes, rows.axis) && b.shape(each) == node.results[0].shape) return each;
  }
  return {};
}

Value labels_of(Builder& b, Value v, const Rows& rows) {
  const Node node = b.graph().node(v);
  const Value labels = is(node, "gather")       ? gathered_labels(b, node, rows)
                       : is(node, "reduce_sum") ? one_hot_labels(b, node, rows)
                                                : Value{};
  if (!labels || is_floating(b.dtype(labels))) return {};
  return b.cast(b.reshape(labels, {b.type(labels).element_count()}), DType::i64);
}

// ---- the loss ----

// [rows]
Value cross_entropy(Builder& b, const Rows& rows, Value labels) {
  const Shape shape = b.shape(rows.x);
  Ints classes_last(shape.size());
  std::iota(classes_last.begin(), classes_last.end(), 0);
  const auto at = classes_last.begin() + static_cast<std::ptrdiff_t>(rows.axis);
  std::rotate(at, at + 1, classes_last.end());
  const Value logits = b.reshape(b.transpose(rows.x, classes_last), {b.shape(labels)[0], shape[rows.axis]});
  return b.call("softmax_cross_entropy", {logits, labels});
}

size_t axis_of(const Node& softmax) { return static_cast<size_t>(softmax.attributes.integer("axis")); }

// A choice from a log_softmax is the negated loss.
Value chosen_logarithm(Builder& b, Value v) {
  const Node node = b.graph().node(v);
  std::vector<Value> sources;
  if (is(node, "gather")) sources = {without_reshape(b.graph(), node.operands[0])};
  if (is(node, "reduce_sum")) sources = b.graph().node(node.operands[0]).operands;
  for (Value source : sources) {
    if (!source) continue;
    const Node softmax = b.graph().node(source);
    if (!is(softmax, "log_softmax")) continue;
    const Value labels = labels_of(b, v, {source, axis_of(softmax)});
    if (labels) return b.unary("neg", cross_entropy(b, {softmax.operands[0], axis_of(softmax)}, labels));
  }
  return {};
}

// log(sum(exp(x))), with or without a shift of x, minus a choice from x.
Value log_sum_minus_choice(Builder& b, Value log_sum, Value choice) {
  const Pattern x = any(0), shift = any(2), shifted = call("sub", {x, spread(shift)});
  const auto summed = [](const Pattern& of) { return kept(1, call("reduce_sum", {call("exp", {of})})); };
  const Pattern pattern = either({sum(0, {call("log", {summed(shifted)}), shift}), call("log", {summed(x)})});
  Captures captures;
  if (!matches(b.graph(), without_reshape(b.graph(), log_sum), pattern, captures)) return {};
  const Ints axes = b.graph().node(captures.values[1]).attributes.ints("axes");
  if (axes.size() != 1) return {};
  const Rows rows{captures.values[0], static_cast<size_t>(axes[0])};
  const Value labels = labels_of(b, without_reshape(b.graph(), choice), rows);
  return labels ? cross_entropy(b, rows, labels) : Value{};
}

}  // namespace

Value recognise_loss(const RuleContext& c) {
  Builder& b = c.builder;
  const TensorType& type = c.node.results[0];
  if (!is_floating(type.dtype) || type.dtype == DType::f64) return {};
  Value loss;
  if (is(c.node, "gather") || is(c.node, "reduce_sum")) {
    loss = chosen_logarithm(b, c.unchanged());
  } else if (is(c.node, "sub")) {
    loss = log_sum_minus_choice(b, c.operands[0], c.operands[1]);
    if (!loss)
      if (const Value negated = log_sum_minus_choice(b, c.operands[1], c.operands[0])) loss = b.unary("neg", negated);
  }
  return loss ? b.cast(b.reshape(loss, type.shape), type.dtype) : Value{};
}

}  // namespace halfstep
