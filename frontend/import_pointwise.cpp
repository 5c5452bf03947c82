// Pointwise operators: arithmetic, comparison, logic, activations.
#include <algorithm>
#include <cmath>
#include <limits>

#include "frontend/operators.h"
#include "frontend/stochastic_depth.h"

namespace halfstep {
namespace {

// numpy broadcasting of all operands to one shape.
std::vector<Value> broadcast_together(NodeContext& c) {
  c.align_broadcast();
  std::vector<Value> values = c.operands();
  Shape joint;
  for (Value v : values) {
    const Shape s = c.b.shape(v);
    if (s.size() > joint.size()) joint.insert(joint.begin(), s.size() - joint.size(), 1);
    for (size_t i = 1; i <= s.size(); ++i) {
      int64_t& size = joint[joint.size() - i];
      const int64_t other = s[s.size() - i];
      if (size != other && size != 1 && other != 1) {
        std::string shapes;
        for (Value w : values) shapes += (shapes.empty() ? "" : " and ") + to_string(c.b.shape(w));
        c.fail("shapes " + shapes + " do not broadcast");
      }
      if (size == 1) size = other;
    }
  }
  for (Value& v : values) v = c.b.broadcast(v, joint);
  return values;
}

// The IR op that the ONNX operator is, by its row's `onnx` column.
const Op& ir_op(NodeContext& c) {
  for (const Op* op : all_ops())
    if (op->onnx == c.op_type()) return *op;
  throw InternalError("no IR op for ONNX operator " + c.op_type());
}

std::vector<Value> import_unary(NodeContext& c) { return {c.b.call_all(ir_op(c), {c.operand(0)})}; }

// A layer written out: the bias of a linear layer as its Linear's, a norm's scale 1.
void initialise_coefficients(NodeContext& c) {
  if (c.operand_count() != 2) return;
  for (size_t i : {0u, 1u}) {
    const Value coefficients = c.operand(i), other = c.operand(1 - i);
    if (c.b.graph().node(coefficients).op->name != "parameter") continue;
    if (c.op_type() == "Mul" && std::ranges::count_if(c.shape(i), [](int64_t size) { return size > 1; }) <= 1)
      c.initialise(coefficients, {FreshRule::constant, 1});
    Node product = c.b.graph().node(other);
    if (product.op->name == "reshape") product = c.b.graph().node(product.operands[0]);
    if (c.op_type() == "Add" && product.op->name == "matmul" && c.shape(i).size() == 1)
      c.initialise(coefficients, fan_in_uniform(c.b.shape(product.operands[0]).back()));
  }
}

std::vector<Value> import_nary(NodeContext& c) {
  initialise_coefficients(c);
  return {c.b.call_all(ir_op(c), broadcast_together(c))};
}

// PyTorch's exporter adds the boolean mask of an attention to its scores: what is not visible counts as -infinity.
std::vector<Value> import_add(NodeContext& c) {
  initialise_coefficients(c);
  std::vector<Value> v = broadcast_together(c);
  for (size_t i : {0u, 1u})
    if (c.b.dtype(v[i]) == DType::boolean && is_floating(c.b.dtype(v[1 - i])))
      v[i] = c.b.select(v[i], c.b.constant_like(v[1 - i], 0),
                        c.b.constant_like(v[1 - i], -std::numeric_limits<double>::infinity()));
  return {c.b.call_all(ir_op(c), v)};
}

// Neg and Abs of integers, which occur in shape arithmetic.
std::vector<Value> import_neg(NodeContext& c) {
  const Value x = c.operand(0);
  return {is_floating(c.b.dtype(x)) ? c.b.unary("neg", x) : c.b.sub(c.b.constant_like(x, 0), x)};
}

std::vector<Value> import_abs(NodeContext& c) {
  const Value x = c.operand(0);
  return {is_floating(c.b.dtype(x)) ? c.b.unary("abs", x) : c.b.binary("max", x, c.b.sub(c.b.constant_like(x, 0), x))};
}

std::vector<Value> import_mul(NodeContext& c) {
  c.align_broadcast();
  const Value dropped = stochastic_depth(c, c.operand(0), c.operand(1));
  return dropped ? std::vector<Value>{dropped} : import_nary(c);
}

Value reduce_pairs(NodeContext& c, std::string_view op) {
  const std::vector<Value> values = broadcast_together(c);
  Value result = values[0];
  for (size_t i = 1; i < values.size(); ++i) result = c.b.binary(op, result, values[i]);
  return result;
}

std::vector<Value> import_max(NodeContext& c) { return {reduce_pairs(c, "max")}; }
std::vector<Value> import_min(NodeContext& c) { return {reduce_pairs(c, "min")}; }
std::vector<Value> import_sum(NodeContext& c) { return {reduce_pairs(c, "add")}; }
std::vector<Value> import_mean(NodeContext& c) {
  return {c.b.mul(reduce_pairs(c, "add"), 1.0 / static_cast<double>(c.operand_count()))};
}

// A constant exponent becomes products and roots, exact for negative bases and cheap.
std::vector<Value> import_pow(NodeContext& c) {
  const Value x = c.operand(0);
  const DType type = c.b.dtype(x);
  if (is_floating(type) && c.is_constant(1) && c.b.type(c.operand(1)).element_count() == 1 &&
      c.shape(1).size() <= c.shape(0).size()) {
    const double exponent = c.number(1, "exponent");
    if (exponent == 1) return {x};
    if (exponent == 2) return {c.b.mul(x, x)};
    if (exponent == 3) return {c.b.mul(c.b.mul(x, x), x)};
    if (exponent == 0.5) return {c.b.unary("sqrt", x)};
    if (exponent == -0.5) return {c.b.unary("rsqrt", x)};
    if (exponent == -1) return {c.b.unary("reciprocal", x)};
  }
  std::vector<Value> operands = broadcast_together(c);
  if (is_floating(type)) operands[1] = c.b.cast(operands[1], type);
  const Value base = is_floating(type) ? operands[0] : c.b.cast(operands[0], DType::f32);
  return {c.b.cast(c.b.binary("pow", base, c.b.cast(operands[1], c.b.dtype(base))), type)};
}

Value truncated(Builder& b, Value x) {
  return b.select(b.binary("less", x, b.constant_like(x, 0)), b.unary("ceil", x), b.unary("floor", x));
}

std::vector<Value> import_mod(NodeContext& c) {
  const bool c_style = c.integer("fmod", 0) != 0;
  const std::vector<Value> v = broadcast_together(c);
  const bool floating = is_floating(c.b.dtype(v[0]));
  if (floating && !c_style) c.fail("fmod=0 is for integers");
  const Value quotient = c.b.div(v[0], v[1]);  // of integers it is truncated already
  const Value remainder = c.b.sub(v[0], c.b.mul(floating ? truncated(c.b, quotient) : quotient, v[1]));
  if (c_style) return {remainder};
  // Elsewhere the result has the divisor's sign.
  const Value zero = c.b.constant_like(remainder, 0);
  const auto negative = [&](Value x) { return c.b.binary("less", x, zero); };
  const Value same_sign = c.b.binary("eq", negative(remainder), negative(v[1]));
  const Value keep = c.b.binary("or", same_sign, c.b.binary("eq", remainder, zero));
  return {c.b.select(keep, remainder, c.b.add(remainder, v[1]))};
}

std::vector<Value> import_greater(NodeContext& c) {
  const std::vector<Value> v = broadcast_together(c);
  return {c.b.binary(c.op_type() == "Greater" ? "less" : "less_equal", v[1], v[0])};
}

std::vector<Value> import_xor(NodeContext& c) {
  const std::vector<Value> v = broadcast_together(c);
  return {c.b.unary("not", c.b.binary("eq", v[0], v[1]))};
}

std::vector<Value> import_is_inf(NodeContext& c) {
  const Value x = c.operand(0);
  const bool negative = c.integer("detect_negative", 1) != 0, positive = c.integer("detect_positive", 1) != 0;
  const Value zero = c.b.constant_like(x, 0);
  const Value infinite = c.b.unary("not", c.b.binary("or", c.b.unary("is_finite", x), c.b.unary("is_nan", x)));
  if (negative && positive) return {infinite};
  if (!negative && !positive) return {c.b.broadcast(c.b.constant(DType::boolean, 0), c.b.shape(x))};
  return {c.b.binary("and", infinite, negative ? c.b.binary("less", x, zero) : c.b.binary("less", zero, x))};
}

// x where lo <= x <= hi: the gradient passes at the bounds, as in PyTorch's clamp.
std::vector<Value> import_clip(NodeContext& c) {
  Value x = c.operand(0);
  const bool operands = c.version >= 11;
  const auto bound = [&](size_t i, const char* name) -> std::optional<double> {
    if (operands) return c.has_operand(i) ? std::optional(c.number(i, name)) : std::nullopt;
    return c.has_attribute(name) ? std::optional(c.number(name, 0.0)) : std::nullopt;
  };
  const std::optional<double> low = bound(1, "min"), high = bound(2, "max");
  if (low == 0.0 && !high && is_floating(c.b.dtype(x))) return {c.b.unary("relu", x)};
  const Value from = x;
  if (low) x = c.b.select(c.b.binary("less", from, c.b.constant_like(x, *low)), c.b.constant_like(x, *low), x);
  if (high) x = c.b.select(c.b.binary("less", c.b.constant_like(x, *high), x), c.b.constant_like(x, *high), x);
  return {x};
}

Value where_negative(Builder& b, Value x, Value if_negative, Value otherwise) {
  return b.select(b.binary("less", x, b.constant_like(x, 0)), if_negative, otherwise);
}

std::vector<Value> import_leaky_relu(NodeContext& c) {
  const Value x = c.operand(0);
  return {where_negative(c.b, x, c.b.mul(x, c.number("alpha", 0.01)), x)};
}

std::vector<Value> import_prelu(NodeContext& c) {
  c.initialise(c.operand(1), {FreshRule::constant, 0.25});
  const std::vector<Value> v = broadcast_together(c);
  return {where_negative(c.b, v[0], c.b.mul(v[0], v[1]), v[0])};
}

std::vector<Value> import_elu(NodeContext& c) {
  const Value x = c.operand(0);
  // exp only of what is negative: a large positive x would overflow, and its gradient be 0 * inf.
  const Value negative = c.b.binary("min", x, c.b.constant_like(x, 0));
  const Value curve = c.b.mul(c.b.add(c.b.unary("exp", negative), -1), c.number("alpha", 1));
  return {where_negative(c.b, x, curve, x)};
}

Value clamp_to_unit(Builder& b, Value x) {
  return b.binary("max", b.binary("min", x, b.constant_like(x, 1)), b.constant_like(x, 0));
}

std::vector<Value> import_hard_sigmoid(NodeContext& c) {
  const Value x = c.operand(0);
  return {clamp_to_unit(c.b, c.b.add(c.b.mul(x, c.number("alpha", 0.2)), c.number("beta", 0.5)))};
}

std::vector<Value> import_hard_swish(NodeContext& c) {
  const Value x = c.operand(0);
  return {c.b.mul(x, clamp_to_unit(c.b, c.b.add(c.b.mul(x, 1.0 / 6), 0.5)))};
}

std::vector<Value> import_gelu(NodeContext& c) {
  const std::string approximate = c.text("approximate", "none");
  if (approximate != "none" && approximate != "tanh")
    c.fail("attribute 'approximate' is '" + approximate + "'; 'none' or 'tanh' expected");
  return {c.b.unary(approximate == "tanh" ? "gelu_tanh" : "gelu", c.operand(0))};
}

std::vector<Value> import_where(NodeContext& c) { return {c.b.call("select", broadcast_together(c))}; }

const std::vector<OnnxOperator> kRows{
    {"Abs", {1}, 1, 1, import_abs},
    {"Add", {7}, 2, 2, import_add},
    {"And", {7}, 2, 2, import_nary},
    {"Ceil", {1}, 1, 1, import_unary},
    {"Clip", {1, 11}, 1, 3, import_clip, "bounds must be known when the model is compiled"},
    {"Cos", {7}, 1, 1, import_unary},
    {"Div", {7}, 2, 2, import_nary},
    {"Elu", {1}, 1, 1, import_elu},
    {"Equal", {7}, 2, 2, import_nary},
    {"Erf", {9}, 1, 1, import_unary},
    {"Exp", {1}, 1, 1, import_unary},
    {"Floor", {1}, 1, 1, import_unary},
    {"Gelu", {20}, 1, 1, import_gelu},
    {"Greater", {7}, 2, 2, import_greater},
    {"GreaterOrEqual", {12}, 2, 2, import_greater},
    {"HardSigmoid", {1}, 1, 1, import_hard_sigmoid},
    {"HardSwish", {14}, 1, 1, import_hard_swish},
    {"IsInf", {10}, 1, 1, import_is_inf},
    {"IsNaN", {9}, 1, 1, import_unary},
    {"LeakyRelu", {1}, 1, 1, import_leaky_relu},
    {"Less", {7}, 2, 2, import_nary},
    {"LessOrEqual", {12}, 2, 2, import_nary},
    {"Log", {1}, 1, 1, import_unary},
    {"Max", {1}, 1, kVariadic, import_max},
    {"Mean", {1}, 1, kVariadic, import_mean},
    {"Min", {1}, 1, kVariadic, import_min},
    {"Mod", {10}, 2, 2, import_mod},
    {"Mul", {7}, 2, 2, import_mul},
    {"Neg", {1}, 1, 1, import_neg},
    {"Not", {1}, 1, 1, import_unary},
    {"Or", {7}, 2, 2, import_nary},
    {"PRelu", {7}, 2, 2, import_prelu},
    {"Pow", {7}, 2, 2, import_pow},
    {"Reciprocal", {1}, 1, 1, import_unary},
    {"Relu", {1}, 1, 1, import_unary},
    {"Round", {11}, 1, 1, import_unary},
    {"Sigmoid", {1}, 1, 1, import_unary},
    {"Sign", {9}, 1, 1, import_unary},
    {"Sin", {7}, 1, 1, import_unary},
    {"Softplus", {1}, 1, 1, import_unary},
    {"Sqrt", {1}, 1, 1, import_unary},
    {"Sub", {7}, 2, 2, import_nary},
    {"Sum", {1}, 1, kVariadic, import_sum},
    {"Tanh", {1}, 1, 1, import_unary},
    {"Where", {9}, 3, 3, import_where},
    {"Xor", {7}, 2, 2, import_xor},
};

}  // namespace

std::span<const OnnxOperator> pointwise_operators() { return kRows; }

}  // namespace halfstep
