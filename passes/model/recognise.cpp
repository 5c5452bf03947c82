#include "passes/model/recognise.h"

#include <algorithm>
#include <numbers>
#include <numeric>

#include "base/as_written.h"
#include "passes/model/recognise_attention.h"
#include "passes/model/recognise_loss.h"
#include "passes/model/written_as_one.h"
#include "passes/rewrite/pattern.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

// A pattern and the operator it means. `build` gives an absent value where the pattern deceives.
struct Meaning {
  Pattern pattern;
  std::string_view op;
  Value (*build)(Builder&, const Captures&, std::string_view op);
};

constexpr auto kCount = PatternNumber::captured(0), kEpsilon = PatternNumber::captured(1);
const Pattern x = any(0);

Pattern exp(Pattern of) { return call("exp", {std::move(of)}); }
Pattern sigmoid(Pattern of) { return call("sigmoid", {std::move(of)}); }
Pattern tanh(Pattern of) { return call("tanh", {std::move(of)}); }
Pattern total(Pattern of) { return call("reduce_sum", {std::move(of)}); }
Pattern quotient(Pattern of, Pattern by) { return call("div", {std::move(of), std::move(by)}); }
Pattern inverse(Pattern of) { return either({call("reciprocal", {of}), quotient(sum(1, {}), of)}); }

Value of_x(Builder& b, const Captures& c, std::string_view op) { return b.unary(op, c.values[0]); }

// ---- activations ----

constexpr double kTanhScale = 0.7978845608028654, kTanhCubic = 0.044715;  // of gelu_tanh

Value minus_softplus(Builder& b, Value x) { return b.unary("neg", b.unary("softplus", x)); }
Value log_sigmoid(Builder& b, const Captures& c, std::string_view) {
  return minus_softplus(b, b.unary("neg", c.values[0]));
}
Value log_one_minus_sigmoid(Builder& b, const Captures& c, std::string_view) { return minus_softplus(b, c.values[0]); }

// log(e^0 + e^x) is safe for large x in f32 only as an operator of its own; so are 1 / (1 + e^-x) and the logarithms of
// a sigmoid; mish, which has a softplus inside, reads and writes what is there. Others (hard swish) gain nothing from a
// name: they are one kernel anyway.
std::vector<Meaning> activations() {
  const Pattern cube = product(kTanhCubic, {x, x, x}), square = product(kTanhCubic, {x, x});
  const auto argument = [&](double times) {  // of the tanh, `times` over
    const double scale = times * kTanhScale;
    return either({product(scale, {sum(0, {x, cube})}), product(scale, {x, sum(1, {square})}),
                   product(1, {x, sum(scale, {product(scale * kTanhCubic, {x, x})})})});
  };
  const Pattern denominator = sum(1, {exp(product(-1, {x}))});
  return {
      {product(0.5, {x, sum(1, {call("erf", {product(std::numbers::sqrt2 / 2, {x})})})}), "gelu", of_x},
      {product(0.5, {x, sum(1, {tanh(argument(1))})}), "gelu_tanh", of_x},
      {product(1, {x, sigmoid(argument(2))}), "gelu_tanh", of_x},
      {either({product(1, {x, sigmoid(x)}), quotient(x, denominator)}), "silu", of_x},
      {inverse(denominator), "sigmoid", of_x},
      {product(1, {x, tanh(call("softplus", {x}))}), "mish", of_x},
      {call("log", {sum(1, {exp(x)})}), "softplus", of_x},
      {call("log", {sigmoid(x)}), "softplus", log_sigmoid},
      {call("log", {either({call("sub", {sum(1, {}), sigmoid(x)}), sum(1, {product(-1, {sigmoid(x)})})})}), "softplus",
       log_one_minus_sigmoid},
  };
}

// ---- softmax ----

// The one axis that the reduction `v` runs over.
std::optional<int64_t> only_axis(const Graph& graph, Value v) {
  const Ints& axes = graph.node(v).attributes.ints("axes");
  return axes.size() == 1 ? std::optional(axes[0]) : std::nullopt;
}

// Slots: 0 x, 1 the sum, 2 what x was shifted by, if it was: the same along the axis, or the sum is another's.
Value along_axis(Builder& b, const Captures& c, std::string_view op) {
  const std::optional<int64_t> axis = only_axis(b.graph(), c.values[1]);
  if (!axis || (c.values[2] && b.shape(c.values[2])[static_cast<size_t>(*axis)] != 1)) return {};
  return b.call(op, {c.values[0]}, {{"axis", *axis}});
}

// Slots: 0 x, 1 its softmax.
Value along_same_axis(Builder& b, const Captures& c, std::string_view op) {
  return b.call(op, {c.values[0]}, {{"axis", b.graph().node(c.values[1]).attributes.integer("axis")}});
}

// With any shift of x that is the same along the axis: its maximum.
std::vector<Meaning> softmaxes() {
  const Pattern shift = any(2);
  const Pattern shifted = call("sub", {x, spread(kept(2, call("reduce_max", {x})))});
  const Pattern sum_of_shifted = kept(1, total(exp(shifted))), sum_of_x = kept(1, total(exp(x)));
  const Pattern log_sum = sum(0, {call("log", {sum_of_shifted}), shift});
  return {
      {quotient(exp(shifted), spread(sum_of_shifted)), "softmax", along_axis},
      {quotient(exp(x), spread(sum_of_x)), "softmax", along_axis},
      {call("log", {kept(1, call("softmax", {x}))}), "log_softmax", along_same_axis},
      {call("sub", {shifted, spread(call("log", {sum_of_shifted}))}), "log_softmax", along_axis},
      {call("sub", {x, spread(log_sum)}), "log_softmax", along_axis},
      {call("sub", {x, spread(call("log", {sum_of_x}))}), "log_softmax", along_axis},
  };
}

// ---- norms ----

constexpr int kX = 0, kSquares = 1, kSums = 2, kCentred = 3, kScale = 4, kBias = 5;

// A norm of x over `axes`: over the last axes, over the channels' axis 1, or over all axes but the channels'. Absent:
// no operator for these.
Value norm_over(Builder& b, Value x, const Ints& axes, std::string_view op, double epsilon) {
  const auto rank = static_cast<int64_t>(b.shape(x).size()), count = static_cast<int64_t>(axes.size());
  const auto over_rows = [&](Value v, int64_t axis) { return b.call(op, {v}, {{"axis", axis}, {"epsilon", epsilon}}); };
  Ints order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  if (std::equal(axes.begin(), axes.end(), order.end() - count)) return over_rows(x, rank - count);
  if (axes == Ints{1}) {
    std::rotate(order.begin() + 1, order.begin() + 2, order.end());
    return b.transpose(over_rows(b.transpose(x, order), rank - 1), halfstep::inverse(order));
  }
  if (count + 1 != rank || op != "layer_norm" || b.dtype(x) == DType::f64) return {};
  int64_t channel = 0;
  while (channel < count && axes[static_cast<size_t>(channel)] == channel) ++channel;
  const Shape channels{b.shape(x)[static_cast<size_t>(channel)]};
  const auto all = [&](double value) { return b.broadcast(b.constant(DType::f32, value), channels); };
  return b.call("batch_norm", {x, all(1), all(0)}, {{"axis", channel}, {"epsilon", epsilon}});
}

// Slots: the reduction of the squares of x or of centred x, that of x itself if there is one, scale and bias likewise.
Value norm(Builder& b, const Captures& c, std::string_view op) {
  const Value x = c.values[kX];
  const auto axes_of = [&](int slot) { return b.graph().node(c.values[slot]).attributes.ints("axes"); };
  const Ints axes = axes_of(kSquares);
  double count = 1;
  for (int64_t axis : axes) count *= static_cast<double>(b.shape(x)[static_cast<size_t>(axis)]);
  if (std::abs(c.numbers[0] * count - 1) > kSameTolerance || c.numbers[1] < 0 ||
      (c.values[kSums] && axes_of(kSums) != axes))
    return {};
  const bool stored_low = b.dtype(x) != DType::f64;
  Value y = norm_over(b, x, axes, op, stored_low ? as_written(static_cast<float>(c.numbers[1])) : c.numbers[1]);
  if (y && c.values[kScale]) y = b.mul(y, c.values[kScale]);
  if (y && c.values[kBias]) y = b.add(y, c.values[kBias]);
  return y;
}

// 1 / sqrt(variance + epsilon), and of times that, also where a scale is multiplied in between.
Pattern inverse_deviation(const Pattern& variance) {
  const Pattern under = sum(kEpsilon, {variance});
  return either({call("rsqrt", {under}), inverse(call("sqrt", {under}))});
}
Pattern normalised(const Pattern& of, const Pattern& variance) {
  const Pattern deviation = call("sqrt", {sum(kEpsilon, {variance})}), factor = spread(inverse_deviation(variance));
  return either({product(1, {of, factor}), quotient(of, spread(deviation)), product(1, {of, factor, any(kScale)}),
                 quotient(product(1, {of, any(kScale)}), spread(deviation))});
}

// The variance as the mean of the squares of x - mean, or as mean(x^2) - mean^2, perhaps held above 0: that loses all
// digits where the mean is large. An affine norm may be one product and one sum: x * a + (bias - mean * a).
std::vector<Meaning> norms() {
  const Pattern mean = product(kCount, {kept(kSums, total(x))});
  const Pattern centred = kept(kCentred, call("sub", {x, spread(mean)}));
  const auto mean_square = [](const Pattern& of) {
    return product(kCount, {kept(kSquares, total(product(1, {of, of})))});
  };
  const Pattern difference = call("sub", {mean_square(x), product(1, {mean, mean})});
  const Pattern variance =
      either({mean_square(centred), difference, call("max", {difference, sum(0, {})}), call("relu", {difference})});
  const Pattern factor = spread(inverse_deviation(variance)), scale = any(kScale), bias = any(kBias);
  const auto affine = [&](const std::vector<Pattern>& a) {
    std::vector<Pattern> of_x = a, of_mean = a;
    of_x.push_back(x), of_mean.push_back(spread(mean));
    return call("add", {product(1, of_x), spread(call("sub", {bias, product(1, of_mean)}))});
  };
  return {{normalised(centred, variance), "layer_norm", norm},
          {affine({factor}), "layer_norm", norm},
          {affine({factor, scale}), "layer_norm", norm},
          {normalised(x, mean_square(x)), "rms_norm", norm}};
}

// Whether the norm has no scale (operand 1) or no bias (2): it is absent, or what a batch norm has instead.
bool lacks(const Graph& graph, const Node& norm, size_t operand) {
  return operand >= norm.operands.size() || !norm.operands[operand] ||
         splat(graph, norm.operands[operand]) == (operand == 1 ? 1.0 : 0.0);
}

// `v` as a scale or bias of the norm, if it is the same along all other axes. `order`: of the norm's axes in `v`.
Value as_operand(Builder& b, Value v, const Node& norm, const Ints& order) {
  const Shape shape = norm.results[0].shape;
  const auto axis = static_cast<size_t>(norm.attributes.integer("axis"));
  Shape wanted, expected(shape.size(), 1);
  const bool by_channel = is(norm, "batch_norm") || is(norm, "group_norm");
  for (size_t i = axis; i < (by_channel ? axis + 1 : shape.size()); ++i)
    wanted.push_back(shape[i]), expected[i] = shape[i];
  if (is(b.graph().node(v), "broadcast")) v = b.graph().node(v).operands[0];
  if (!order.empty() && (!keeps_order(expected, order) || b.shape(v) != permuted(expected, order))) return {};
  if (order.empty() && b.shape(v) != expected) return {};
  return b.reshape(v, wanted);
}

// mul(norm(x), scale) and add(norm(x, scale), bias), where a transpose may stand behind the norm; rms_norm has no bias.
Value affine_norm(const RuleContext& c) {
  if (!is(c.node, "mul") && !is(c.node, "add")) return {};
  const size_t operand = is(c.node, "mul") ? 1 : 2;
  Builder& b = c.builder;
  for (size_t i : {0u, 1u}) {
    Value normal = c.operands[i];
    Ints order;
    if (is(c.maker(i), "transpose")) order = c.maker(i).attributes.ints("permutation"), normal = c.maker(i).operands[0];
    const Node& made = b.graph().node(normal);
    const bool has_bias = is(made, "layer_norm") || is(made, "batch_norm") || is(made, "group_norm");
    if (normal.result != 0 || !(has_bias || (is(made, "rms_norm") && operand == 1)) ||
        !lacks(b.graph(), made, operand) || !lacks(b.graph(), made, 2))
      continue;
    const Node norm = made;
    const Value v = as_operand(b, c.operands[1 - i], norm, order);
    if (!v || b.dtype(v) != norm.results[0].dtype) continue;
    std::vector<Value> operands = norm.operands;
    operands.resize(std::max(operands.size(), operand + 1));
    operands[operand] = v;
    const Value y = b.call_all(*norm.op, std::move(operands), norm.attributes).front();
    return order.empty() ? y : b.transpose(y, order);
  }
  return {};
}

// A norm over groups that was written as one over other channels.
Value norm_over_groups(const RuleContext& c) {
  if (!is(c.node, "reshape") || c.operands[0].result != 0 || !is(c.maker(0), "group_norm")) return {};
  Builder& b = c.builder;
  const Node norm = c.maker(0);
  if (!normalises_groups(b.graph(), norm, c.node.results[0])) return {};
  const Value x = b.graph().node(norm.operands[0]).operands[0];
  const auto all = [&](double value) { return b.broadcast(b.constant(DType::f32, value), Shape{b.shape(x)[1]}); };
  return b.call_all(op("group_norm"), {x, all(1), all(0)}, norm.attributes).front();
}

// ---- all of them ----

const std::vector<Meaning>& meanings() {
  static const std::vector<Meaning> all = [] {
    std::vector<Meaning> joined;
    for (std::vector<Meaning> some : {activations(), softmaxes(), norms()})
      joined.insert(joined.end(), some.begin(), some.end());
    return joined;
  }();
  return all;
}

bool can_be_root(const Node& node) {
  return is(node, "mul") || is(node, "div") || is(node, "reciprocal") || is(node, "log") || is(node, "sub") ||
         is(node, "add");
}

Value pattern_meaning(const RuleContext& c) {
  if (!can_be_root(c.node) || !is_floating(c.node.results[0].dtype)) return {};
  Builder& b = c.builder;
  const Value root = c.unchanged();
  for (const Meaning& meaning : meanings()) {
    Captures captures;
    if (!matches(b.graph(), root, meaning.pattern, captures)) continue;
    if (const Value v = meaning.build(b, captures, meaning.op); v && b.type(v) == c.node.results[0]) return v;
  }
  return {};
}

constexpr Rule kRules[] = {pattern_meaning, affine_norm, norm_over_groups, recognise_loss};

}  // namespace

Graph recognise(const Graph& graph) { return recognise_attention(apply_rules(graph, kRules)); }

}  // namespace halfstep
