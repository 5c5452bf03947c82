// Activations: pointwise operators of one operand and a few coefficients.
#include "frontend/import/operators.h"
#include "frontend/operators/activations.h"

namespace halfstep {
namespace {

std::vector<Value> import_by_name(NodeContext& c) { return {activate(c)}; }

std::vector<Value> import_swish(NodeContext& c) { return {swish(c, 1)}; }

std::vector<Value> import_swiglu(NodeContext& c) {
  if (c.shape(0) != c.shape(1))
    c.fail("operands of one shape expected, found " + to_string(c.shape(0)) + " and " + to_string(c.shape(1)));
  return {c.b.mul(swish(c, 1), c.operand(1))};
}

// Files of the oldest exporters have one slope for each channel without the axes behind it.
bool has_bare_channel_slopes(NodeContext& c) {
  const Shape x = c.shape(0), slope = c.shape(1);
  return slope.size() == 1 && x.size() > 2 && slope[0] == x[1] && slope[0] != 1 && slope[0] != x.back();
}

std::vector<Value> import_prelu(NodeContext& c) {
  c.initialise(c.operand(1), {Initializer::constant, 0.25});
  if (has_bare_channel_slopes(c)) {
    Shape channels(c.shape(0).size(), 1);
    channels[1] = c.shape(1)[0];
    const Value x = c.operand(0), slope = c.b.broadcast(c.b.reshape(c.operand(1), channels), c.b.shape(x));
    return {where_negative(c.b, x, c.b.mul(x, slope), x)};
  }
  const std::vector<Value> v = c.broadcast_operands();
  return {where_negative(c.b, v[0], c.b.mul(v[0], v[1]), v[0])};
}

std::vector<Value> import_selu(NodeContext& c) {
  const Value x = c.operand(0);
  const double alpha = c.number("alpha", 1.6732632423543772), gamma = c.number("gamma", 1.0507009873554805);
  return {c.b.mul(where_negative(c.b, x, c.b.mul(negative_curve(c.b, x), alpha), x), gamma)};
}

std::vector<Value> import_celu(NodeContext& c) {
  const Value x = c.operand(0);
  const double alpha = c.number("alpha", 1);
  if (alpha == 0) c.fail("attribute 'alpha' is zero");
  return {where_negative(c.b, x, c.b.mul(negative_curve(c.b, c.b.mul(x, 1 / alpha)), alpha), x)};
}

std::vector<Value> import_gelu(NodeContext& c) {
  const std::string approximate = c.text("approximate", "none");
  if (approximate != "none" && approximate != "tanh")
    c.fail("attribute 'approximate' is '" + approximate + "'; 'none' or 'tanh' expected");
  return {c.b.unary(approximate == "tanh" ? "gelu_tanh" : "gelu", c.operand(0))};
}

std::vector<Value> import_mish(NodeContext& c) { return {c.b.unary("mish", c.operand(0))}; }

std::vector<Value> import_shrink(NodeContext& c) {
  Builder& b = c.b;
  const Value x = c.operand(0);
  const double lambda = c.number("lambd", 0.5), bias = c.number("bias", 0);
  const Value below = b.binary("less", x, b.constant_like(x, -lambda)),
              above = b.binary("less", b.constant_like(x, lambda), x);
  const Value shrunk = b.select(above, b.sub(x, b.constant_like(x, bias)), b.constant_like(x, 0));
  return {b.select(below, b.add(x, bias), shrunk)};
}

const std::vector<OnnxOperator> kRows{
    {"Celu", {12}, 1, 1, import_celu},         {"Elu", {1}, 1, 1, import_by_name},
    {"Gelu", {20}, 1, 1, import_gelu},         {"HardSigmoid", {1}, 1, 1, import_by_name},
    {"HardSwish", {14}, 1, 1, import_by_name}, {"LeakyRelu", {1}, 1, 1, import_by_name},
    {"Mish", {18}, 1, 1, import_mish},         {"PRelu", {7}, 2, 2, import_prelu},
    {"Selu", {1}, 1, 1, import_selu},          {"Shrink", {9}, 1, 1, import_shrink},
    {"Softsign", {1}, 1, 1, import_by_name},   {"SwiGLU", {28}, 2, 2, import_swiglu},
    {"Swish", {24}, 1, 1, import_swish},       {"ThresholdedRelu", {1}, 1, 1, import_by_name},
};

}  // namespace

std::span<const OnnxOperator> activation_operators() { return kRows; }

}  // namespace halfstep
