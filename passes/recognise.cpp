#include "passes/recognise.h"

#include <algorithm>
#include <numbers>

#include "base/as_written.h"
#include "passes/picture.h"
#include "passes/recognise_attention.h"
#include "passes/rules.h"

namespace halfstep {
namespace {

// A picture and the operator it means. `build` gives an absent value where the picture deceives.
struct Meaning {
  Picture picture;
  std::string_view op;
  Value (*build)(Builder&, const Captures&, std::string_view op);
};

constexpr auto kCount = PictureNumber::captured(0), kEpsilon = PictureNumber::captured(1);
const Picture x = any(0);

Picture exp(Picture of) { return call("exp", {std::move(of)}); }
Picture sigmoid(Picture of) { return call("sigmoid", {std::move(of)}); }
Picture tanh(Picture of) { return call("tanh", {std::move(of)}); }
Picture total(Picture of) { return call("reduce_sum", {std::move(of)}); }
Picture quotient(Picture of, Picture by) { return call("div", {std::move(of), std::move(by)}); }
Picture inverse(Picture of) { return either({call("reciprocal", {of}), quotient(sum(1, {}), of)}); }

Value of_x(Builder& b, const Captures& c, std::string_view op) { return b.unary(op, c.values[0]); }

// ---- activations ----

constexpr double kTanhScale = 0.7978845608028654, kTanhCubic = 0.044715;  // of gelu_tanh

// log(e^0 + e^x) is safe for large x in f32 only as an operator of its own; so is 1 / (1 + e^-x).
std::vector<Meaning> activations() {
  const Picture cube = product(kTanhCubic, {x, x, x}), square = product(kTanhCubic, {x, x});
  const Picture tanh_argument =
      either({product(kTanhScale, {sum(0, {x, cube})}), product(kTanhScale, {x, sum(1, {square})})});
  const Picture denominator = sum(1, {exp(product(-1, {x}))});
  return {
      {product(0.5, {x, sum(1, {call("erf", {product(std::numbers::sqrt2 / 2, {x})})})}), "gelu", of_x},
      {product(0.5, {x, sum(1, {tanh(tanh_argument)})}), "gelu_tanh", of_x},
      {product(1, {x, sigmoid(product(2 * kTanhScale, {sum(0, {x, cube})}))}), "gelu_tanh", of_x},
      {either({product(1, {x, sigmoid(x)}), quotient(x, denominator)}), "silu", of_x},
      {inverse(denominator), "sigmoid", of_x},
      {call("log", {sum(1, {exp(x)})}), "softplus", of_x},
  };
}

// ---- softmax ----

// The one axis that the reduction `v` runs over.
std::optional<int64_t> only_axis(const Graph& graph, Value v) {
  const Ints& axes = graph.node(v).attributes.ints("axes");
  return axes.size() == 1 ? std::optional(axes[0]) : std::nullopt;
}

// Slots: 0 x, 1 the sum.
Value along_axis(Builder& b, const Captures& c, std::string_view op) {
  const std::optional<int64_t> axis = only_axis(b.graph(), c.values[1]);
  return axis ? b.call(op, {c.values[0]}, {{"axis", *axis}}) : Value{};
}

// Slots: 0 x, 1 its softmax.
Value along_same_axis(Builder& b, const Captures& c, std::string_view op) {
  return b.call(op, {c.values[0]}, {{"axis", b.graph().node(c.values[1]).attributes.integer("axis")}});
}

// With any shift of x that is the same along the axis: its maximum, as a rule.
std::vector<Meaning> softmaxes() {
  const Picture shift = any(2);
  const Picture shifted = call("sub", {x, spread(kept(2, call("reduce_max", {x})))});
  const Picture sum_of_shifted = kept(1, total(exp(shifted))), sum_of_x = kept(1, total(exp(x)));
  const Picture log_sum = sum(0, {call("log", {sum_of_shifted}), shift});
  return {
      {quotient(exp(shifted), spread(sum_of_shifted)), "softmax", along_axis},
      {quotient(exp(x), spread(sum_of_x)), "softmax", along_axis},
      {call("log", {kept(1, call("softmax", {x}))}), "log_softmax", along_same_axis},
      {call("sub", {shifted, spread(call("log", {sum_of_shifted}))}), "log_softmax", along_axis},
      {call("sub", {x, spread(log_sum)}), "log_softmax", along_axis},
      {call("sub", {x, spread(call("log", {sum_of_x}))}), "log_softmax", along_axis},
  };
}

// The element of row i that label i chooses, of the logarithms of a softmax over classes. Slots: 0 the logits, 1 the
// labels, 2 the classes' numbers, 3 the log_softmax.
Value chosen_logarithm(Builder& b, const Captures& c, std::string_view op) {
  const Value logits = c.values[0], labels = c.values[1], classes = c.values[2];
  const Shape shape = b.shape(logits);
  const auto along = [&](Value v, std::string_view name, int64_t axis) {
    return b.graph().node(v).attributes.integer(name) == axis;
  };
  if (shape.size() != 2 || !along(classes, "axis", 1) || !along(c.values[3], "axis", 1) ||
      b.type(labels) != TensorType{DType::i64, {shape[0], 1}})
    return {};
  const Value loss = b.call(op, {logits, b.reshape(labels, {shape[0]})});
  return b.reshape(b.unary("neg", loss), {shape[0], 1});
}

std::vector<Meaning> losses() {
  const Picture chosen = call("eq", {kept(2, call("iota", {})), spread(any(1))});
  return {{total(call("select", {chosen, kept(3, call("log_softmax", {x})), sum(0, {})})), "softmax_cross_entropy",
           chosen_logarithm}};
}

// ---- norms ----

// The first axis of a reduction over the last axes of `x`.
std::optional<int64_t> last_axes(const Graph& graph, Value reduction, const Shape& shape) {
  const Ints& axes = graph.node(reduction).attributes.ints("axes");
  const auto rank = static_cast<int64_t>(shape.size()), count = static_cast<int64_t>(axes.size());
  for (int64_t i = 0; i < count; ++i)
    if (axes[static_cast<size_t>(i)] != rank - count + i) return std::nullopt;
  return rank - count;
}

// Slots: 0 x, 1 the reduction of its squares, 2 the reduction of x itself, if there is one.
Value norm(Builder& b, const Captures& c, std::string_view op) {
  const Shape shape = b.shape(c.values[0]);
  const std::optional<int64_t> axis = last_axes(b.graph(), c.values[1], shape);
  if (!axis) return {};
  double count = 1;
  for (size_t i = static_cast<size_t>(*axis); i < shape.size(); ++i) count *= static_cast<double>(shape[i]);
  if (std::abs(c.numbers[0] * count - 1) > kConstantTolerance || c.numbers[1] < 0 ||
      (c.values[2] && last_axes(b.graph(), c.values[2], shape) != axis))
    return {};
  const bool stored_low = b.dtype(c.values[0]) != DType::f64;
  const double epsilon = stored_low ? as_written(static_cast<float>(c.numbers[1])) : c.numbers[1];
  return b.call(op, {c.values[0]}, {{"axis", *axis}, {"epsilon", epsilon}});
}

// of / sqrt(mean(of^2) + epsilon)
Picture normalised(const Picture& of) {
  const Picture mean_square = product(kCount, {kept(1, total(product(1, {of, of})))});
  const Picture variance = sum(kEpsilon, {mean_square}), deviation = call("sqrt", {variance});
  return either({product(1, {of, spread(either({call("rsqrt", {variance}), inverse(deviation)}))}),
                 quotient(of, spread(deviation))});
}

std::vector<Meaning> norms() {
  const Picture mean = product(kCount, {kept(2, total(x))});
  return {{normalised(kept(3, call("sub", {x, spread(mean)}))), "layer_norm", norm}, {normalised(x), "rms_norm", norm}};
}

// `v` as [last axes of `shape`], if it is the same along all others.
Value of_last_axes(Builder& b, Value v, const Shape& shape, size_t axis) {
  const Shape wanted(shape.begin() + static_cast<std::ptrdiff_t>(axis), shape.end());
  Value small = v;
  if (is(b.graph().node(v), "broadcast")) small = b.graph().node(v).operands[0];
  Shape expected(axis, 1);
  expected.insert(expected.end(), wanted.begin(), wanted.end());
  return b.shape(small) == expected ? b.reshape(small, wanted) : Value{};
}

// mul(layer_norm(x), scale) and add(layer_norm(x, scale), bias); rms_norm has no bias.
Value affine_norm(const RuleContext& c) {
  const bool scales = is(c.node, "mul"), shifts = is(c.node, "add");
  if (!scales && !shifts) return {};
  for (size_t i : {0u, 1u}) {
    const Node norm = c.maker(i);
    const bool centred = is(norm, "layer_norm");
    if (c.operands[i].result != 0 || !(centred || is(norm, "rms_norm"))) continue;
    const auto given = [&](size_t operand) { return operand < norm.operands.size() && norm.operands[operand]; };
    if ((scales && (given(1) || given(2))) || (shifts && (!centred || given(2)))) continue;
    const Value v = of_last_axes(c.builder, c.operands[1 - i], norm.results[0].shape,
                                 static_cast<size_t>(norm.attributes.integer("axis")));
    if (!v || c.builder.dtype(v) != norm.results[0].dtype) continue;
    std::vector<Value> operands = norm.operands;
    operands.resize(scales ? 2 : 3);
    operands.back() = v;
    return c.builder.call_all(*norm.op, std::move(operands), norm.attributes).front();
  }
  return {};
}

// ---- all of them ----

const std::vector<Meaning>& meanings() {
  static const std::vector<Meaning> all = [] {
    std::vector<Meaning> joined;
    for (std::vector<Meaning> some : {activations(), softmaxes(), losses(), norms()})
      joined.insert(joined.end(), some.begin(), some.end());
    return joined;
  }();
  return all;
}

bool can_be_root(const Node& node) {
  return is(node, "mul") || is(node, "div") || is(node, "reciprocal") || is(node, "log") || is(node, "sub") ||
         is(node, "reduce_sum");
}

Value picture_meaning(const RuleContext& c) {
  if (!can_be_root(c.node) || !is_floating(c.node.results[0].dtype)) return {};
  Builder& b = c.builder;
  const Value root = b.call_all(*c.node.op, {c.operands.begin(), c.operands.end()}, c.node.attributes).front();
  for (const Meaning& meaning : meanings()) {
    Captures captures;
    if (!matches(b.graph(), root, meaning.picture, captures)) continue;
    if (const Value v = meaning.build(b, captures, meaning.op); v && b.type(v) == c.node.results[0]) return v;
  }
  return {};
}

constexpr Rule kRules[] = {picture_meaning, affine_norm};

}  // namespace

Graph recognise(const Graph& graph) { return recognise_attention(apply_rules(graph, kRules)); }

}  // namespace halfstep
