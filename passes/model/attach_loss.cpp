#include "passes/model/attach_loss.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/model/logits_behind.h"
#include "passes/rewrite/rules.h"
#include "passes/rewrite/term_nodes.h"

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
    const Value own = input(b, name, type);
    return whose == Whose::partners ? in_reverse(b, own) : own;
  }
  // Of the batch's samples, or of those that they are mixed with.
  enum class Whose : uint8_t { own, partners } whose = Whose::own;

 private:
  Value input(Builder& b, const std::string& name, const TensorType& type) {
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
  static Value in_reverse(Builder& b, Value x) {
    Tensor rows(TensorType{DType::i64, {b.shape(x).front()}});
    std::iota(rows.as<int64_t>().rbegin(), rows.as<int64_t>().rend(), int64_t{0});
    return b.call("gather", {x, b.constant(rows)}, {{"axis", int64_t{0}}});
  }

  std::map<std::string, Value> made_;
};

// Per-sample values [N] and their total [].
struct Measure {
  Value rows, total;
};

struct Losses {
  Measure loss;
  Measure correct;  // absent unless labels name classes
  Measure counted;  // absent unless labels can be ignored
  Measure weighed;  // absent unless labels weigh as their classes do
};

// Of each label, [N, positions...].
struct Labelled {
  Value losses;   // 0 where the label is ignored, times `weights`
  Value right;    // bool; absent: nothing can be right or wrong
  Value valid;    // bool; absent: every label counts
  Value weights;  // f32, 0 where the label is ignored; absent: all weigh alike
};

Value sum_all(Builder& b, Value x) { return b.sum_to(x, {}); }

Value mean_all(Builder& b, Value x) {
  return b.mul(sum_all(b, x), 1.0 / static_cast<double>(b.type(x).element_count()));
}

// [N, positions...] -> [N], the sum over the positions.
Value row_sums(Builder& b, Value x) {
  const Shape shape = b.shape(x);
  if (b.type(x).element_count() == 0)
    throw Error(fmt::format("loss: an output over {} has no value", to_string(shape)));
  const int64_t rows = shape.front(), positions = b.type(x).element_count() / rows;
  if (positions == 1) return b.reshape(x, {rows});
  return b.reshape(b.reduce("reduce_sum", b.reshape(x, {rows, positions}), {1}), {rows});
}

Value row_means(Builder& b, Value x) {
  const Value sums = row_sums(b, x);
  const int64_t positions = b.type(x).element_count() / b.shape(x).front();
  return positions == 1 ? sums : b.mul(sums, 1.0 / static_cast<double>(positions));
}

bool takes_tokens(const Graph& graph) {
  return std::ranges::any_of(graph.nodes(), [](const Node& node) {
    return is(node, "input") && !is_floating(node.results[0].dtype) && node.results[0].shape.size() == 2;
  });
}

// Where an output has no classes to choose from.
std::string other_loss(const TensorType& type, const OutputLoss& options) {
  if (!is_floating(type.dtype)) return "";
  if (type.shape.empty()) return "; if it is the model's own loss, set loss to from_graph";
  if (function_of(options).labels != LossFunction::classes || type.shape.size() > 1) return "";
  return "; of one number a sample, labels 0 and 1 are a matter of loss bce_with_logits, numbers of "
         "mean_squared_error" +
         std::string(type.element_count() == 1 ? ", the model's own loss of from_graph" : "");
}

int64_t class_axis(const Graph& graph, const NamedValue& output, const OutputLoss& options) {
  const TensorType& type = graph.type(output.value);
  const int64_t rank = static_cast<int64_t>(type.shape.size());
  const int64_t chosen = options.class_axis.value_or(rank == 3 && takes_tokens(graph) ? -1 : 1);
  const int64_t axis = chosen < 0 ? chosen + rank : chosen;
  if (!is_floating(type.dtype) || axis < 1 || axis >= rank)
    throw Error(fmt::format("loss: output '{}' is {}; logits [N, ...] with classes on axis {} expected{}",
                            output.name.text, to_string(type), chosen, other_loss(type, options)));
  if (function_of(options).labels == LossFunction::classes && type.shape[static_cast<size_t>(axis)] == 1)
    throw Error(fmt::format(
        "loss: output '{}' is {}, and of one class there is nothing to learn: for labels 0 and 1 set loss "
        "to bce_with_logits, for numbers to mean_squared_error{}",
        output.name.text, to_string(type), rank > 2 ? ", or choose the axis of the classes with class_axis" : ""));
  return axis;
}

// The mean over the labels that count, by their weights.
Losses measured(Builder& b, const Labelled& l) {
  const auto counts = [&](Value truths) {
    const Value rows = row_means(b, b.cast(truths, DType::f32));
    return Measure{rows, sum_all(b, rows)};
  };
  Losses result;
  result.loss.rows = row_means(b, l.losses);
  if (l.valid) result.counted = counts(l.valid);
  if (l.weights) {
    result.weighed = counts(l.weights);
    const Value total = sum_all(b, l.weights), one = b.constant(DType::f32, 1);
    const Value divisor = b.select(b.call("less", {b.constant(DType::f32, 0), total}), total, one);
    result.loss.total = b.div(sum_all(b, l.losses), divisor);
  } else if (l.valid) {
    const Value total = sum_all(b, b.cast(l.valid, DType::f32));
    result.loss.total = b.div(sum_all(b, l.losses), b.call("max", {total, b.constant(DType::f32, 1)}));
  } else {
    result.loss.total = mean_all(b, l.losses);
  }
  if (l.right) result.correct = counts(l.valid ? b.call("and", {l.right, l.valid}) : l.right);
  return result;
}

// Whether labels are none that is ignored; absent where none is.
Value valid_labels(Builder& b, Value labels, const OutputLoss& options) {
  if (!options.ignore_index) return {};
  const Value ignored = b.constant_like(labels, static_cast<double>(*options.ignore_index));
  return b.unary("not", b.call("eq", {labels, ignored}));
}

Value where(Builder& b, Value condition, Value x) {
  return condition ? b.select(condition, x, b.constant_like(x, 0)) : x;
}

// The values of a list, one for each class.
Value list_of(Builder& b, const OutputLoss& options, const std::string& key, int64_t classes) {
  const std::vector<double>& values = options.parameters.at(key);
  if (static_cast<int64_t>(values.size()) != classes)
    throw Error(
        fmt::format("loss: {} has {} values, the output {} classes: give one for each", key, values.size(), classes));
  return b.constant(Tensor::from_values({DType::f32, {classes}}, values));
}

// Scores as rows, and the labels of the rows.
struct ClassRows {
  Value scores, labels, flat_labels;  // [count, classes], [N, positions...], [count]
  Shape positions;
  int64_t count, classes;
};

ClassRows class_rows(Builder& b, References& references, Value scores, int64_t axis, const OutputLoss& options) {
  scores = b.cast(scores, DType::f32);
  const Shape shape = b.shape(scores);
  const int64_t rank = static_cast<int64_t>(shape.size());
  Ints classes_last;
  ClassRows r{.scores = {}, .labels = {}, .flat_labels = {}, .positions = {}, .count = 0, .classes = 0};
  for (int64_t i = 0; i < rank; ++i)
    if (i != axis) classes_last.push_back(i), r.positions.push_back(shape[static_cast<size_t>(i)]);
  classes_last.push_back(axis);
  r.count = TensorType{DType::u8, r.positions}.element_count(), r.classes = shape[static_cast<size_t>(axis)];
  r.labels = references.take(b, label_input(options), {DType::i64, r.positions});
  r.scores = b.reshape(b.transpose(scores, classes_last), {r.count, r.classes});
  r.flat_labels = b.reshape(r.labels, {r.count});
  return r;
}

// [count]: of each row its label's score, 0 where the label is no class.
Value picked(Builder& b, const ClassRows& r) {
  const Value index = b.call("iota", {}, {{"shape", Shape{r.count, r.classes}}, {"axis", int64_t{1}}});
  const Value chosen = b.binary("eq", index, b.reshape(r.flat_labels, {r.count, 1}));
  const Value scores = b.select(chosen, r.scores, b.constant_like(r.scores, 0));
  return b.reshape(b.reduce("reduce_sum", scores, {1}), {r.count});
}

// A focal loss: c (1 - p)^gamma, where c = -log p. Its slope at p = 1 is 0 for every gamma.
Value focal(Builder& b, Value cross_entropy, double gamma) {
  constexpr double kTiny = 1e-30;
  const Value rest = b.unary("neg", b.unary("expm1", b.unary("neg", cross_entropy)));
  const Value held = b.call("max", {rest, b.constant_like(rest, kTiny)});
  return b.mul(cross_entropy, b.call("pow", {held, b.constant_like(held, gamma)}));
}

// [count]: what a softmax gives the labels, with their weights where there are some.
Value cross_entropy(Builder& b, const ClassRows& r, Value weights, const OutputLoss& options) {
  Attributes attributes;
  if (options.ignore_index) attributes.set("ignore_index", *options.ignore_index);
  const double smoothing = value_of(options, "label_smoothing"), gamma = value_of(options, "focal_gamma");
  if (smoothing != 0 && !weights) attributes.set("smoothing", smoothing);
  Value losses = b.call("softmax_cross_entropy", {r.scores, r.flat_labels}, attributes);
  if (gamma != 0) losses = focal(b, losses, gamma);
  if (!weights) return losses;
  losses = b.mul(losses, weights);
  if (smoothing == 0) return losses;
  // Every class has a share of the label, and its own weight in that.
  const Value table = list_of(b, options, "class_weights", r.classes);
  const Value all = b.mul(b.call("log_softmax", {r.scores}, {{"axis", int64_t{1}}}), b.reshape(table, {1, r.classes}));
  Value spread = b.reshape(b.reduce("reduce_sum", all, {1}), {r.count});
  spread = where(b, valid_labels(b, r.flat_labels, options), spread);
  return b.sub(b.mul(losses, 1 - smoothing), b.mul(spread, smoothing / static_cast<double>(r.classes)));
}

// `scores`: what they are, logits or logarithms of a softmax.
Losses loss_of_classes(Builder& b, const ClassRows& r, const OutputLoss& options, const LossFunction::Scores scores) {
  const Value valid = valid_labels(b, r.labels, options);
  Value weights;  // [count]
  if (options.parameters.contains("class_weights")) {
    const Value table = list_of(b, options, "class_weights", r.classes);
    weights = b.call("gather", {table, r.flat_labels}, {{"axis", int64_t{0}}});
    weights = where(b, valid ? b.reshape(valid, {r.count}) : Value{}, weights);
  }
  Value losses;
  if (scores == LossFunction::class_logits) {
    losses = cross_entropy(b, r, weights, options);
  } else {
    losses = where(b, valid ? b.reshape(valid, {r.count}) : Value{}, b.unary("neg", picked(b, r)));
    if (weights) losses = b.mul(losses, weights);
  }
  const Value guess = b.reshape(b.call("argmax", {r.scores}, {{"axis", int64_t{1}}}), r.positions);
  return measured(b, {.losses = b.reshape(losses, r.positions),
                      .right = b.call("eq", {guess, r.labels}),
                      .valid = valid,
                      .weights = weights ? b.reshape(weights, r.positions) : Value{}});
}

// The terms of a row's formula, of the elements of an output f32.
class ElementNodes final : public TermNodes<LossContext> {
 public:
  // `axis`: of the classes.
  ElementNodes(Builder& builder, Value output, Value target, const OutputLoss& options, std::optional<int64_t> axis)
      : TermNodes(builder), output_(output), target_(target), options_(options), axis_(axis) {}

  Term output() override { return term(output_); }
  Term target() override { return term(target_); }
  double parameter(std::string_view name) const override { return value_of(options_, name); }
  bool given(std::string_view name) const override { return options_.parameters.contains(name); }
  Term by_class(std::string_view name) override {
    const std::vector<double>& values = options_.parameters.find(name)->second;
    if (values.size() == 1) return constant(values.front());
    Shape shape(b_.shape(output_).size(), 1);
    if (!axis_)
      throw Error(fmt::format("loss: {} has {} values, and an output without classes takes one", name, values.size()));
    const auto at = static_cast<size_t>(*axis_);
    shape[at] = b_.shape(output_)[at];
    return term(b_.reshape(list_of(b_, options_, std::string(name), shape[at]), shape));
  }

 private:
  const Value output_, target_;
  const OutputLoss& options_;
  const std::optional<int64_t> axis_;
};

// Whether it has a number for each class.
bool has_lists(const OutputLoss& options) {
  return std::ranges::any_of(options.parameters, [&](const auto& given) {
    return given.second.size() > 1 && function_of(options).reads(given.first);
  });
}

// Of each element of `y`, which is f32.
Losses loss_of_elements(Builder& b, References& references, Value y, const OutputLoss& options,
                        std::optional<int64_t> axis) {
  const LossFunction& function = function_of(options);
  Value target = references.take(b, label_input(options), b.type(y));
  Labelled l{.losses = {}, .right = {}, .valid = {}, .weights = {}};
  if (function.reads("ignore_index")) l.valid = valid_labels(b, target, options);
  target = where(b, l.valid, target);
  ElementNodes nodes(b, y, target, options, axis);
  const Term loss = function.element(nodes);
  l.losses = where(b, l.valid, nodes.value(loss));
  if (function.sample == LossFunction::sum) {
    const Value rows = row_sums(b, l.losses);
    return {.loss = {rows, mean_all(b, rows)}, .correct = {}, .counted = {}, .weighed = {}};
  }
  if (function.labels == LossFunction::yes_or_no) {
    const Value is_one = b.call("less", {b.constant_like(target, 0.5), target});
    l.right = b.call("eq", {b.call("less", {b.constant_like(y, 0), y}), is_one});
  }
  return measured(b, l);
}

// The model computes its loss. A scalar one is every row's loss.
Losses loss_of_graph(Builder& b, Value loss, const std::string& name) {
  const TensorType type = b.type(loss);
  if (!is_floating(type.dtype) || (type.element_count() != 1 && type.shape.size() != 1))
    throw Error(fmt::format("loss: output '{}' is {}; a loss f32[] or f32[N] expected", name, to_string(type)));
  loss = b.cast(loss, DType::f32);
  if (type.element_count() != 1)
    return {.loss = {loss, mean_all(b, loss)}, .correct = {}, .counted = {}, .weighed = {}};
  loss = b.reshape(loss, {});
  int64_t batch = 0;
  for (const Node& node : b.graph().nodes())
    if (batch == 0 && is(node, "input") && !node.results[0].shape.empty()) batch = node.results[0].shape.front();
  if (batch == 0) throw Error(fmt::format("loss: output '{}' is a scalar and no input has a batch axis", name));
  return {.loss = {b.broadcast(loss, {batch}), loss}, .correct = {}, .counted = {}, .weighed = {}};
}

constexpr std::array<std::string_view, 3> kProbabilities{"softmax", "log_softmax", "sigmoid"};
constexpr std::array<std::string_view, 1> kSigmoid{"sigmoid"}, kSoftmax{"softmax"}, kLogSoftmax{"log_softmax"};
constexpr std::array<std::string_view, 2> kNoLogarithms{"softmax", "sigmoid"};

// One loss on its output.
class Attach {
 public:
  Attach(const Graph& graph, Builder& b, const ValueMap& map, LossOptions::Samples samples,
         std::vector<std::string>* remarks)
      : graph_(graph), b_(b), map_(map), samples_(samples), remarks_(remarks) {}

  Losses operator()(const OutputLoss& options) {
    check_parameters(options);
    Losses losses = of_labels(options);
    if (samples_ == LossOptions::apart) return losses;
    expect_one_label(options);
    if (!share_) share_ = b_.input(kStepMixShare, {DType::f32, {}});
    references_.whose = References::Whose::partners;
    std::vector<std::string>* const told = std::exchange(remarks_, nullptr);
    const Value partners = of_labels(options).loss.total;
    references_.whose = References::Whose::own, remarks_ = told;
    const Value rest = b_.sub(b_.constant(DType::f32, 1), share_);
    losses.loss.total = b_.add(b_.mul(share_, losses.loss.total), b_.mul(rest, partners));
    losses.correct.total = {};
    return losses;
  }

 private:
  // What mixes two samples mixes one label of each.
  void expect_one_label(const OutputLoss& options) const {
    const LossFunction& function = function_of(options);
    const NamedValue& output = chosen_output(graph_, options.output);
    const TensorType& type = graph_.type(output.value);
    if (function.labels != LossFunction::classes && function.labels != LossFunction::yes_or_no)
      throw Error(
          fmt::format("mixup and cutmix: loss {} takes no shares of labels: take softmax_cross_entropy or "
                      "bce_with_logits, or leave them out",
                      options.kind));
    if (type.shape.size() != 2)
      throw Error(
          fmt::format("mixup and cutmix: output '{}' is {}, and labels of one sample are mixed as a whole: "
                      "[N, classes] expected: leave them out",
                      output.name.text, to_string(type)));
  }

  Losses of_labels(const OutputLoss& options) {
    const NamedValue& output = chosen_output(graph_, options.output);
    const LossFunction& function = function_of(options);
    switch (function.scores) {
      case LossFunction::class_logits:
        return of_classes(output, options, kProbabilities);
      case LossFunction::class_log_likelihood:
        return of_classes(output, options, kLogSoftmax);
      case LossFunction::own_loss:
        return loss_of_graph(b_, map_(output.value), output.name.text);
      default:
        return of_elements(output, options, function);
    }
  }

  Losses of_classes(const NamedValue& output, const OutputLoss& options,
                    std::span<const std::string_view> looked_through) {
    const int64_t axis = class_axis(graph_, output, options);
    LossFunction::Scores scores = function_of(options).scores;
    const Value y = map_(output.value), behind = operand_behind(b_, y, looked_through, axis);
    if (!behind && scores == LossFunction::class_log_likelihood && operand_behind(b_, y, kNoLogarithms, axis))
      throw Error(
          fmt::format("loss: output '{}' holds probabilities, of which {} takes the logarithms: take "
                      "softmax_cross_entropy, which finds the logits behind them",
                      output.name.text, options.kind));
    if (behind) scores = LossFunction::class_logits, tell_logits(output);
    return loss_of_classes(b_, class_rows(b_, references_, behind ? behind : y, axis, options), options, scores);
  }

  Losses of_elements(const NamedValue& output, const OutputLoss& options, const LossFunction& function) {
    Value y = map_(output.value);
    const std::string& name = output.name.text;
    if (!is_floating(b_.dtype(y)) || b_.shape(y).empty())
      throw Error(
          fmt::format("loss: output '{}' is {}; floating numbers [N, ...] expected", name, to_string(b_.type(y))));
    if (function.scores == LossFunction::logits) {
      if (operand_behind(b_, y, kSoftmax, std::nullopt))
        throw Error(
            fmt::format("loss: output '{}' is a softmax, of which one class is true: take softmax_cross_entropy; {} is "
                        "for classes that do not exclude each other",
                        name, function.name));
      if (const Value behind = operand_behind(b_, y, kSigmoid, std::nullopt)) y = behind, tell_logits(output);
    }
    if (function.scores == LossFunction::log_likelihood && operand_behind(b_, y, kNoLogarithms, std::nullopt))
      throw Error(
          fmt::format("loss: output '{}' holds probabilities, of which {} takes the logarithms: let the model end in a "
                      "LogSoftmax",
                      name, function.name));
    std::optional<int64_t> axis;
    if (has_lists(options) && b_.shape(y).size() > 1) axis = class_axis(graph_, output, options);
    return loss_of_elements(b_, references_, b_.cast(y, DType::f32), options, axis);
  }

  void tell_logits(const NamedValue& output) {
    if (remarks_)
      remarks_->push_back(fmt::format(
          "output '{}' holds probabilities (of '{}'): the loss takes the logits behind them, the model keeps them",
          output.name.text, *graph_.node(output.value).origin.name));
  }

  const Graph& graph_;
  Builder& b_;
  const ValueMap& map_;
  const LossOptions::Samples samples_;
  std::vector<std::string>* remarks_;
  References references_;
  Value share_{};
};

void output_measures(Builder& b, const Losses& losses, const std::function<Name(const OwnName&)>& named) {
  const std::tuple<OwnName, OwnName, const Measure&> all[] = {{kLoss, kRowLoss, losses.loss},
                                                              {kCorrect, kRowCorrect, losses.correct},
                                                              {kCounted, kRowCounted, losses.counted},
                                                              {kWeighed, kRowWeighed, losses.weighed}};
  for (const auto& [total, rows, measure] : all)
    if (measure.total) b.output(named(total), measure.total);
  for (const auto& [total, rows, measure] : all)
    if (measure.rows) b.output(named(rows), measure.rows);
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

  Attach attach(graph, b, map, options.samples, remarks);
  if (terms.empty()) {
    OriginScope scope(b, {"loss", Phase::loss});
    output_measures(b, attach(options), [](const OwnName& measure) -> Name { return measure; });
  } else {
    attach_terms(b, attach, terms);
  }
  return std::move(b).finish();
}

std::optional<int64_t> axis_of_classes(const Graph& graph, const LossOptions& options) {
  if (!options.terms.empty() || function_of(options).labels != LossFunction::classes) return std::nullopt;
  return class_axis(graph, chosen_output(graph, options.output), options);
}

std::optional<int64_t> axis_of_lists(const Graph& graph, const OutputLoss& loss) {
  const NamedValue& output = chosen_output(graph, loss.output);
  if (!has_lists(loss) || graph.type(output.value).shape.size() < 2) return std::nullopt;
  return class_axis(graph, output, loss);
}

std::optional<int64_t> class_count(const Graph& graph, const OutputLoss& loss) {
  if (function_of(loss).labels != LossFunction::classes) return std::nullopt;
  const NamedValue& output = chosen_output(graph, loss.output);
  return graph.type(output.value).shape[static_cast<size_t>(class_axis(graph, output, loss))];
}

std::optional<int64_t> class_count(const Graph& graph, const LossOptions& options) {
  if (!options.terms.empty()) return std::nullopt;
  return class_count(graph, static_cast<const OutputLoss&>(options));
}

}  // namespace halfstep
