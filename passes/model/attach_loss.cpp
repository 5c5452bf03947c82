#include "passes/model/attach_loss.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

// Class labels and other integers are none.
std::string output_to_train_on(const Graph& graph) {
  const auto is_trainable = [&](const NamedValue& o) { return is_floating(graph.type(o.value).dtype); };
  const auto found = std::ranges::find_if(graph.outputs(), is_trainable);
  return found == graph.outputs().end() ? "" : fmt::format(", such as --output {}", found->name.text);
}

const NamedValue& chosen_output(const Graph& graph, const std::string& wanted) {
  std::vector<std::string> names;
  for (const NamedValue& o : graph.outputs()) {
    if (o.name == Name(wanted) || (wanted.empty() && graph.outputs().size() == 1)) return o;
    names.push_back(o.name.text);
  }
  const std::string suggestion = nearest(wanted, names);
  throw Error(fmt::format("loss: {}{}; the model's outputs are: {}",
                          wanted.empty() ? "name the output to train on" + output_to_train_on(graph)
                                         : fmt::format("no output '{}'", wanted),
                          suggestion.empty() ? "" : fmt::format(", did you mean '{}'?", suggestion),
                          fmt::join(names, ", ")));
}

// The inputs for what outputs are compared with, one for all losses that name it.
class References {
 public:
  Value take(Builder& b, const std::string& name, const TensorType& type) {
    const auto known = made_.find(name);
    if (known != made_.end() && b.type(known->second) == type) return known->second;
    if (known != made_.end())
      throw Error(
          fmt::format("loss: input '{}' is {} for one loss and {} for another: give them inputs of their own "
                      "with 'labels'",
                      name, to_string(b.type(known->second)), to_string(type)));
    if (b.graph().leaf(name))
      throw Error(fmt::format(
          "loss: the model has an input or weight '{}' of its own; rename it, that name is the loss's", name));
    return made_[name] = b.input(name, type);
  }

 private:
  std::map<std::string, Value> made_;
};

// Per-sample values [N] and their total [].
struct Measure {
  Value rows, total;
};

struct Losses {
  Measure loss;
  Measure correct;  // absent unless there are classes
  Measure counted;  // absent unless labels can be ignored
};

Value sum_all(Builder& b, Value x) { return b.sum_to(x, {}); }

Value mean_all(Builder& b, Value x) {
  return b.mul(sum_all(b, x), 1.0 / static_cast<double>(b.type(x).element_count()));
}

// [N, positions...] -> [N], the mean over the positions.
Value row_means(Builder& b, Value x) {
  const Shape shape = b.shape(x);
  if (b.type(x).element_count() == 0)
    throw Error(fmt::format("loss: an output over {} has no value", to_string(shape)));
  const int64_t rows = shape.front(), positions = b.type(x).element_count() / rows;
  if (positions == 1) return b.reshape(x, {rows});
  const Value sums = b.reduce("reduce_sum", b.reshape(x, {rows, positions}), {1});
  return b.mul(b.reshape(sums, {rows}), 1.0 / static_cast<double>(positions));
}

bool takes_tokens(const Graph& graph) {
  return std::ranges::any_of(graph.nodes(), [](const Node& node) {
    return is(node, "input") && !is_floating(node.results[0].dtype) && node.results[0].shape.size() == 2;
  });
}

int64_t class_axis(const Graph& graph, const NamedValue& output, const OutputLoss& options) {
  const TensorType& type = graph.type(output.value);
  const int64_t rank = static_cast<int64_t>(type.shape.size());
  const int64_t chosen = options.class_axis.value_or(rank == 3 && takes_tokens(graph) ? -1 : 1);
  const int64_t axis = chosen < 0 ? chosen + rank : chosen;
  if (!is_floating(type.dtype) || axis < 1 || axis >= rank)
    throw Error(fmt::format("loss: output '{}' is {}; logits [N, ...] with classes on axis {} expected{}",
                            output.name.text, to_string(type), chosen,
                            is_floating(type.dtype) && type.element_count() == 1
                                ? "; if it is the model's own loss, set loss to from_graph"
                                : ""));
  return axis;
}

Losses cross_entropy(Builder& b, References& references, Value logits, int64_t axis, const OutputLoss& options) {
  logits = b.cast(logits, DType::f32);
  const Shape shape = b.shape(logits);
  const int64_t rank = static_cast<int64_t>(shape.size());
  Ints classes_last;
  Shape positions;
  for (int64_t i = 0; i < rank; ++i)
    if (i != axis) classes_last.push_back(i), positions.push_back(shape[static_cast<size_t>(i)]);
  classes_last.push_back(axis);
  const int64_t count = TensorType{DType::u8, positions}.element_count();

  const Value labels = references.take(b, label_input(options), {DType::i64, positions});
  const Value x = b.reshape(b.transpose(logits, classes_last), {count, shape[static_cast<size_t>(axis)]});
  const Value flat_labels = b.reshape(labels, {count});
  Attributes attributes;
  if (options.ignore_index) attributes.set("ignore_index", *options.ignore_index);
  if (options.label_smoothing != 0) attributes.set("smoothing", options.label_smoothing);
  const Value losses = b.reshape(b.call("softmax_cross_entropy", {x, flat_labels}, attributes), positions);
  const Value guess = b.reshape(b.call("argmax", {x}, {{"axis", int64_t{1}}}), positions);
  const auto counts = [&](Value truths) {
    const Value rows = row_means(b, b.cast(truths, DType::f32));
    return Measure{rows, sum_all(b, rows)};
  };
  const Value right = b.call("eq", {guess, labels});
  if (!options.ignore_index) return {{row_means(b, losses), mean_all(b, losses)}, counts(right), {}};
  const Value ignored = b.call("eq", {labels, b.constant_like(labels, static_cast<double>(*options.ignore_index))});
  const Value valid = b.unary("not", ignored);
  const Value total = sum_all(b, b.cast(valid, DType::f32));
  return {{row_means(b, losses), b.div(sum_all(b, losses), b.call("max", {total, b.constant(DType::f32, 1)}))},
          counts(b.call("and", {right, valid})),
          counts(valid)};
}

// ---- a model that ends in probabilities ----

// The axis that `axis` of the result is of the operand of a movement; absent if there is none.
std::optional<int64_t> axis_before(const Graph& graph, const Node& movement, int64_t axis) {
  if (is(movement, "transpose")) return movement.attributes.ints("permutation")[static_cast<size_t>(axis)];
  if (!is(movement, "reshape")) return std::nullopt;
  const Shape &from = graph.type(movement.operands[0]).shape, &to = movement.results[0].shape;
  const auto after = [](const Shape& shape, int64_t i) {
    return TensorType{DType::u8, {shape.begin() + i + 1, shape.end()}}.element_count();
  };
  for (int64_t i = 0; i < static_cast<int64_t>(from.size()); ++i)
    if (from[static_cast<size_t>(i)] == to[static_cast<size_t>(axis)] && after(from, i) == after(to, axis)) return i;
  return std::nullopt;
}

// [1 - p, p] along the axis, where p is a sigmoid: the softmax of [0, its operand].
Value logits_of_two(Builder& b, const Node& concat, int64_t axis) {
  if (!is(concat, "concat") || concat.operands.size() != 2 || concat.attributes.integer("axis") != axis) return {};
  const Node rest = b.graph().node(concat.operands[0]), sigmoid = b.graph().node(concat.operands[1]);
  if (!is(rest, "sub") || rest.operands[1] != concat.operands[1] || splat(b.graph(), rest.operands[0]) != 1.0 ||
      !is(sigmoid, "sigmoid"))
    return {};
  const Value z = sigmoid.operands[0];
  return b.call("concat", {b.constant_like(z, 0), z}, {{"axis", axis}});
}

// The logits whose softmax, its logarithm, or sigmoids `y` is, with classes along `axis`; absent if it is none.
Value logits_behind(Builder& b, Value y, int64_t axis) {
  const Node node = b.graph().node(y);
  if (is(node, "softmax") || is(node, "log_softmax"))
    return node.attributes.integer("axis") == axis ? node.operands[0] : Value{};
  if (is(node, "sigmoid")) return node.operands[0];
  if (const Value two = logits_of_two(b, node, axis)) return two;
  const bool casts = is(node, "cast") && is_floating(b.dtype(node.operands[0]));
  const std::optional<int64_t> before = casts ? axis : axis_before(b.graph(), node, axis);
  if (!before) return {};
  const Value inner = logits_behind(b, node.operands[0], *before);
  return inner ? b.call_all(*node.op, {inner}, node.attributes).front() : Value{};
}

Losses mean_squared_error(Builder& b, References& references, Value y, const std::string& name,
                          const OutputLoss& options) {
  if (b.dtype(y) != DType::f32 || b.shape(y).empty())
    throw Error(fmt::format("loss: output '{}' is {}; f32 [N, ...] expected", name, to_string(b.type(y))));
  const Value difference = b.sub(y, references.take(b, label_input(options), b.type(y)));
  const Value squares = b.mul(difference, difference);
  return {{row_means(b, squares), mean_all(b, squares)}, {}, {}};
}

// The model computes its loss. A scalar one is every row's loss.
Losses loss_of_graph(Builder& b, Value loss, const std::string& name) {
  const TensorType type = b.type(loss);
  if (!is_floating(type.dtype) || (type.element_count() != 1 && type.shape.size() != 1))
    throw Error(fmt::format("loss: output '{}' is {}; a loss f32[] or f32[N] expected", name, to_string(type)));
  loss = b.cast(loss, DType::f32);
  if (type.element_count() != 1) return {{loss, mean_all(b, loss)}, {}, {}};
  loss = b.reshape(loss, {});
  int64_t batch = 0;
  for (const Node& node : b.graph().nodes())
    if (batch == 0 && is(node, "input") && !node.results[0].shape.empty()) batch = node.results[0].shape.front();
  if (batch == 0) throw Error(fmt::format("loss: output '{}' is a scalar and no input has a batch axis", name));
  return {{b.broadcast(loss, {batch}), loss}, {}, {}};
}

// One loss on its output.
class Attach {
 public:
  Attach(const Graph& graph, Builder& b, const ValueMap& map, std::vector<std::string>* remarks)
      : graph_(graph), b_(b), map_(map), remarks_(remarks) {}

  Losses operator()(const OutputLoss& options) {
    const NamedValue& output = chosen_output(graph_, options.output);
    const std::string& name = output.name.text;
    switch (options.kind) {
      case LossKind::softmax_cross_entropy: {
        const int64_t axis = class_axis(graph_, output, options);
        return cross_entropy(b_, references_, logits(output, axis), axis, options);
      }
      case LossKind::mean_squared_error:
        return mean_squared_error(b_, references_, map_(output.value), name, options);
      case LossKind::from_graph:
        break;
    }
    return loss_of_graph(b_, map_(output.value), name);
  }

 private:
  Value logits(const NamedValue& output, int64_t axis) {
    const Value y = map_(output.value), behind = logits_behind(b_, y, axis);
    if (behind && remarks_)
      remarks_->push_back(fmt::format(
          "output '{}' holds probabilities (of '{}'): the loss takes the logits behind them, the model keeps them",
          output.name.text, *graph_.node(output.value).origin.name));
    return behind ? behind : y;
  }

  const Graph& graph_;
  Builder& b_;
  const ValueMap& map_;
  std::vector<std::string>* remarks_;
  References references_;
};

void output_measures(Builder& b, const Losses& losses, const std::function<Name(const OwnName&)>& named) {
  b.output(named(kLoss), losses.loss.total);
  if (losses.correct.total) b.output(named(kCorrect), losses.correct.total);
  if (losses.counted.total) b.output(named(kCounted), losses.counted.total);
  b.output(named(kRowLoss), losses.loss.rows);
  if (losses.correct.rows) b.output(named(kRowCorrect), losses.correct.rows);
  if (losses.counted.rows) b.output(named(kRowCounted), losses.counted.rows);
}

void attach_terms(Builder& b, Attach& attach, const std::vector<LossTerm>& terms) {
  Measure sum;
  const auto add = [&](Value& to, Value part, double weight) {
    part = weight == 1 ? part : b.mul(part, weight);
    if (to && b.shape(to) != b.shape(part))
      throw Error(fmt::format("loss: one loss has {} samples a batch, another {}", b.shape(to)[0], b.shape(part)[0]));
    to = to ? b.add(to, part) : part;
  };
  for (size_t i = 0; i < terms.size(); ++i) {
    Losses losses;
    {
      OriginScope scope(b, {"loss '" + terms[i].name + "'", Phase::loss});
      losses = attach(terms[i].loss);
      output_measures(b, losses, [i](const OwnName& measure) { return of_loss(measure, i); });
    }
    if (terms[i].weight == 0) continue;
    OriginScope scope(b, {"loss", Phase::loss});
    add(sum.total, losses.loss.total, terms[i].weight), add(sum.rows, losses.loss.rows, terms[i].weight);
  }
  if (!sum.total) throw Error("loss: every weight is 0, so that there is nothing to train on");
  b.output(kLoss, sum.total);
  b.output(kRowLoss, sum.rows);
}

}  // namespace

std::string label_input(const OutputLoss& loss) {
  if (loss.kind == LossKind::from_graph) return "";
  if (!loss.labels.empty()) return loss.labels;
  return loss.kind == LossKind::mean_squared_error ? "targets" : "labels";
}

std::vector<LossTerm> named_terms(const Graph& graph, const LossOptions& options) {
  std::vector<LossTerm> terms = options.terms;
  std::set<std::string> names;
  Problems problems;
  for (LossTerm& term : terms) try {
      if (term.name.empty()) term.name = chosen_output(graph, term.loss.output).name.text;
      if (!names.insert(term.name).second)
        throw Error(fmt::format("loss: two losses have the name '{}': give each its own with 'name'", term.name));
      if (!std::isfinite(term.weight)) throw Error(fmt::format("loss '{}': its weight is not finite", term.name));
    } catch (const Error& e) {
      problems.add(e.what());
    }
  problems.throw_if_any();
  return terms;
}

Graph attach_loss(const Graph& graph, const LossOptions& options, std::vector<std::string>* remarks) {
  if (options.terms.empty()) chosen_output(graph, options.output);
  const std::vector<LossTerm> terms = named_terms(graph, options);
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b);
  for (const NamedValue& o : graph.outputs())
    if (options.model_outputs != LossOptions::dropped) b.output(o.name, map(o.value));
  for (const StateUpdate& u : graph.updates()) b.update(map(u.state), map(u.value));

  Attach attach(graph, b, map, remarks);
  if (terms.empty()) {
    OriginScope scope(b, {"loss", Phase::loss});
    output_measures(b, attach(options), [](const OwnName& measure) -> Name { return measure; });
  } else {
    attach_terms(b, attach, terms);
  }
  return std::move(b).finish();
}

std::optional<int64_t> axis_of_classes(const Graph& graph, const LossOptions& options) {
  if (!options.terms.empty() || options.kind != LossKind::softmax_cross_entropy) return std::nullopt;
  return class_axis(graph, chosen_output(graph, options.output), options);
}

std::optional<int64_t> class_count(const Graph& graph, const OutputLoss& loss) {
  if (loss.kind != LossKind::softmax_cross_entropy) return std::nullopt;
  const NamedValue& output = chosen_output(graph, loss.output);
  return graph.type(output.value).shape[static_cast<size_t>(class_axis(graph, output, loss))];
}

std::optional<int64_t> class_count(const Graph& graph, const LossOptions& options) {
  if (!options.terms.empty()) return std::nullopt;
  return class_count(graph, static_cast<const OutputLoss&>(options));
}

}  // namespace halfstep
