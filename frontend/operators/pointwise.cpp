// Pointwise operators: arithmetic, comparison, logic, activations.
#include <algorithm>
#include <cmath>
#include <limits>

#include "frontend/import/operators.h"
#include "frontend/operators/stochastic_depth.h"

namespace halfstep {
namespace {

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
      c.initialise(coefficients, {Initializer::constant, 1});
    Node product = c.b.graph().node(other);
    if (product.op->name == "reshape") product = c.b.graph().node(product.operands[0]);
    if (c.op_type() == "Add" && product.op->name == "matmul" && c.shape(i).size() == 1)
      c.initialise(coefficients, fan_in_uniform(c.b.shape(product.operands[0]).back(), Initializer::layer_bias));
  }
}

std::vector<Value> import_nary(NodeContext& c) {
  initialise_coefficients(c);
  return {c.b.call_all(ir_op(c), c.broadcast_operands())};
}

// PyTorch's exporter adds the boolean mask of an attention to its scores: what is not visible counts as -infinity.
std::vector<Value> import_add(NodeContext& c) {
  initialise_coefficients(c);
  std::vector<Value> v = c.broadcast_operands();
  for (size_t i : {0u, 1u})
    if (c.b.dtype(v[i]) == DType::boolean && is_floating(c.b.dtype(v[1 - i])))
      v[i] = c.b.select(v[i], c.b.constant_like(v[1 - i], 0),
                        c.b.constant_like(v[1 - i], -std::numeric_limits<double>::infinity()));
  return {c.b.call_all(ir_op(c), v)};
}

// Neg, Abs and Sign of integers, which occur in shape arithmetic.
std::vector<Value> import_neg(NodeContext& c) {
  const Value x = c.operand(0);
  return {is_floating(c.b.dtype(x)) ? c.b.unary("neg", x) : c.b.sub(c.b.constant_like(x, 0), x)};
}

std::vector<Value> import_abs(NodeContext& c) {
  const Value x = c.operand(0);
  return {is_floating(c.b.dtype(x)) ? c.b.unary("abs", x) : c.b.binary("max", x, c.b.sub(c.b.constant_like(x, 0), x))};
}

std::vector<Value> import_sign(NodeContext& c) {
  Builder& b = c.b;
  const Value x = c.operand(0);
  if (is_floating(b.dtype(x))) return {b.unary("sign", x)};
  return {b.binary("min", b.binary("max", x, b.constant_like(x, -1)), b.constant_like(x, 1))};
}

std::vector<Value> import_mul(NodeContext& c) {
  c.align_broadcast();
  const Value dropped = stochastic_depth(c, c.operand(0), c.operand(1));
  return dropped ? std::vector<Value>{dropped} : import_nary(c);
}

Value reduce_pairs(NodeContext& c, std::string_view op) {
  const std::vector<Value> values = c.broadcast_operands();
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

// Integers to an integer power by squaring: exact, and wrapped where it overflows. Below 0 it is a reciprocal.
Value integer_power(Builder& b, Value x, Value exponent) {
  const Value zero = b.constant_like(exponent, 0), two = b.constant_like(exponent, 2), one = b.constant_like(x, 1);
  const Value negative = b.binary("less", exponent, zero);
  Value rest = b.select(negative, b.sub(zero, exponent), exponent), power = one, square = x;
  for (int bit = 0; bit < 6; ++bit) {  // 2^63 and more fit no type
    const Value half = b.div(rest, two);
    const Value even = b.binary("eq", b.mul(half, two), rest);
    power = b.select(even, power, b.mul(power, square));
    square = b.mul(square, square), rest = half;
  }
  return b.select(negative, b.div(one, power), power);
}

// A constant exponent becomes products and roots, exact for negative bases and cheap.
std::vector<Value> import_pow(NodeContext& c) {
  const Value x = c.operand(0);
  const DType type = c.b.dtype(x);
  if (!is_floating(type)) {
    const DType given = c.b.dtype(c.operand(1));
    const bool whole = !is_floating(given) || (c.is_constant(1) && c.b.type(c.operand(1)).element_count() == 1 &&
                                               c.number(1, "exponent") == std::trunc(c.number(1, "exponent")));
    const std::vector<Value> v = c.broadcast_operands();
    if (whole) return {integer_power(c.b, v[0], is_floating(given) ? c.b.cast(v[1], DType::i64) : v[1])};
  }
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
  std::vector<Value> operands = c.broadcast_operands();
  if (is_floating(type)) operands[1] = c.b.cast(operands[1], type);
  const Value base = is_floating(type) ? operands[0] : c.b.cast(operands[0], DType::f32);
  return {c.b.cast(c.b.binary("pow", base, c.b.cast(operands[1], c.b.dtype(base))), type)};
}

std::vector<Value> import_mod(NodeContext& c) {
  const bool c_style = c.integer("fmod", 0) != 0;
  const std::vector<Value> v = c.broadcast_operands();
  const bool floating = is_floating(c.b.dtype(v[0]));
  if (floating && !c_style && c.version < 28) c.fail("fmod=0 is for integers before opset 28");
  // A quotient of integers is truncated already.
  const Value remainder = floating ? c.b.binary("fmod", v[0], v[1]) : c.b.sub(v[0], c.b.mul(c.b.div(v[0], v[1]), v[1]));
  if (c_style) return {remainder};
  // Elsewhere the result has the divisor's sign.
  const Value zero = c.b.constant_like(remainder, 0);
  const auto negative = [&](Value x) { return c.b.binary("less", x, zero); };
  const Value same_sign = c.b.binary("eq", negative(remainder), negative(v[1]));
  const Value keep = c.b.binary("or", same_sign, c.b.binary("eq", remainder, zero));
  return {c.b.select(keep, remainder, c.b.add(remainder, v[1]))};
}

std::vector<Value> import_greater(NodeContext& c) {
  const std::vector<Value> v = c.broadcast_operands();
  return {c.b.binary(c.op_type() == "Greater" ? "less" : "less_equal", v[1], v[0])};
}

std::vector<Value> import_xor(NodeContext& c) {
  const std::vector<Value> v = c.broadcast_operands();
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
  Builder& b = c.b;
  const Value from = c.operand(0);
  const auto bound = [&](size_t i, const char* name) -> Value {
    if (c.version >= 11) return c.has_operand(i) ? b.broadcast(c.operand(i), b.shape(from)) : Value{};
    return c.has_attribute(name) ? b.constant_like(from, c.number(name, 0.0)) : Value{};
  };
  const Value low = bound(1, "min"), high = bound(2, "max");
  if (low && !high && is_floating(b.dtype(from)) && c.version >= 11 && c.is_constant(1) && c.number(1, "min") == 0)
    return {b.unary("relu", from)};
  Value x = from;
  if (low) x = b.select(b.binary("less", from, low), low, x);
  if (high) x = b.select(b.binary("less", high, x), high, x);
  return {x};
}

std::vector<Value> import_where(NodeContext& c) { return {c.b.call("select", c.broadcast_operands())}; }

const std::vector<OnnxOperator> kRows{
    {"Abs", {1}, 1, 1, import_abs},           {"Acos", {7}, 1, 1, import_unary},
    {"Acosh", {9}, 1, 1, import_unary},       {"Add", {7}, 2, 2, import_add},
    {"And", {7}, 2, 2, import_nary},          {"Asin", {7}, 1, 1, import_unary},
    {"Asinh", {9}, 1, 1, import_unary},       {"Atan", {7}, 1, 1, import_unary},
    {"Atanh", {9}, 1, 1, import_unary},       {"Ceil", {1}, 1, 1, import_unary},
    {"Clip", {1, 11}, 1, 3, import_clip},     {"Cos", {7}, 1, 1, import_unary},
    {"Cosh", {9}, 1, 1, import_unary},        {"Div", {7}, 2, 2, import_nary},
    {"Equal", {7}, 2, 2, import_nary},        {"Erf", {9}, 1, 1, import_unary},
    {"Exp", {1}, 1, 1, import_unary},         {"Floor", {1}, 1, 1, import_unary},
    {"Greater", {7}, 2, 2, import_greater},   {"GreaterOrEqual", {12}, 2, 2, import_greater},
    {"IsInf", {10}, 1, 1, import_is_inf},     {"IsNaN", {9}, 1, 1, import_unary},
    {"Less", {7}, 2, 2, import_nary},         {"LessOrEqual", {12}, 2, 2, import_nary},
    {"Log", {1}, 1, 1, import_unary},         {"Max", {1}, 1, kVariadic, import_max},
    {"Mean", {1}, 1, kVariadic, import_mean}, {"Min", {1}, 1, kVariadic, import_min},
    {"Mod", {10, 28}, 2, 2, import_mod},      {"Mul", {7}, 2, 2, import_mul},
    {"Neg", {1}, 1, 1, import_neg},           {"Not", {1}, 1, 1, import_unary},
    {"Or", {7}, 2, 2, import_nary},           {"Pow", {7}, 2, 2, import_pow},
    {"Reciprocal", {1}, 1, 1, import_unary},  {"Relu", {1}, 1, 1, import_unary},
    {"Round", {11}, 1, 1, import_unary},      {"Sigmoid", {1}, 1, 1, import_unary},
    {"Sign", {9}, 1, 1, import_sign},         {"Sin", {7}, 1, 1, import_unary},
    {"Sinh", {9}, 1, 1, import_unary},        {"Softplus", {1}, 1, 1, import_unary},
    {"Sqrt", {1}, 1, 1, import_unary},        {"Sub", {7}, 2, 2, import_nary},
    {"Sum", {1}, 1, kVariadic, import_sum},   {"Tan", {7}, 1, 1, import_unary},
    {"Tanh", {1}, 1, 1, import_unary},        {"Where", {9}, 3, 3, import_where},
    {"Xor", {7}, 2, 2, import_xor},
};

}  // namespace

std::span<const OnnxOperator> pointwise_operators() { return kRows; }

}  // namespace halfstep
