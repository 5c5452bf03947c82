// Pointwise operators: one scalar body each, from which the interpreter and the kernels derive.
#include <limits>
#include <numbers>

#include "ir/ops/families.h"

namespace halfstep {
namespace {

using Args = std::span<const Scalar>;

std::string operand_types(const TypeContext& c) {
  std::string text;
  for (const TensorType* t : c.operands) text += (text.empty() ? "" : " and ") + to_string(*t);
  return text;
}

std::vector<TensorType> same_type(const TypeContext& c) {
  for (const TensorType* t : c.operands)
    ops::expect(*t == c.operand(0), [&] { return "operands differ: " + operand_types(c); });
  return {c.operand(0)};
}

std::vector<TensorType> floating_type(const TypeContext& c) {
  ops::expect(is_floating(c.operand(0).dtype),
              [&] { return "a floating operand expected, found " + operand_types(c); });
  return same_type(c);
}

std::vector<TensorType> predicate_type(const TypeContext& c) { return {{DType::boolean, same_type(c)[0].shape}}; }

std::vector<TensorType> logical_type(const TypeContext& c) {
  ops::expect(c.operand(0).dtype == DType::boolean,
              [&] { return "bool operands expected, found " + operand_types(c); });
  return same_type(c);
}

std::vector<TensorType> select_type(const TypeContext& c) {
  ops::expect(
      c.operand(0).dtype == DType::boolean && c.operand(1) == c.operand(2) && c.operand(0).shape == c.operand(1).shape,
      [&] { return "bool, and two values of one type expected, found " + operand_types(c); });
  return {c.operand(1)};
}

std::vector<TensorType> cast_type(const TypeContext& c) { return {{c.attributes.dtype("to"), c.operand(0).shape}}; }

// The cotangent dx = dy * derivative(x, y), written with the builder.
Value dy(const VjpContext& c) { return c.cotangents[0]; }
Value x(const VjpContext& c) { return c.operands[0]; }
Value y(const VjpContext& c) { return c.results[0]; }

std::vector<Value> relu_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  return {b.select(b.call("less", {b.constant_like(y(c), 0), y(c)}), dy(c), b.constant_like(dy(c), 0))};
}

std::vector<Value> abs_vjp(const VjpContext& c) { return {c.builder.mul(dy(c), c.builder.unary("sign", x(c)))}; }

std::vector<Value> sigmoid_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  return {b.mul(dy(c), b.mul(y(c), b.sub(b.constant_like(y(c), 1), y(c))))};
}

std::vector<Value> tanh_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  return {b.mul(dy(c), b.sub(b.constant_like(y(c), 1), b.mul(y(c), y(c))))};
}

std::vector<Value> erf_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value gaussian = b.unary("exp", b.unary("neg", b.mul(x(c), x(c))));
  return {b.mul(dy(c), b.mul(gaussian, 2 * std::numbers::inv_sqrtpi))};
}

std::vector<Value> normal_cdf_vjp(const VjpContext& c) {
  return {c.builder.mul(dy(c), c.builder.unary("normal_density", x(c)))};
}

std::vector<Value> normal_density_vjp(const VjpContext& c) {
  return {c.builder.unary("neg", c.builder.mul(dy(c), c.builder.mul(x(c), y(c))))};
}

// d/dx x Φ(x) = Φ(x) + x φ(x).
std::vector<Value> gelu_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value v = x(c);
  return {b.mul(dy(c), b.add(b.unary("normal_cdf", v), b.mul(v, b.unary("normal_density", v))))};
}

constexpr double kGeluScale = 0.7978845608028654;  // sqrt(2 / pi)
constexpr double kGeluCubic = 0.044715;            // Hendrycks and Gimpel 2016

// (1 + tanh u) / 2 is the logistic function of 2 u.
std::vector<Value> gelu_tanh_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value v = x(c), square = b.mul(v, v);
  const auto scaled = [&](double times) {  // 2 sqrt(2 / pi) (1 + times 0.044715 x^2)
    return b.add(b.mul(square, 2 * kGeluScale * kGeluCubic * times), 2 * kGeluScale);
  };
  const Value s = b.unary("sigmoid", b.mul(v, scaled(1)));
  const Value slope = b.mul(b.mul(s, b.sub(b.constant_like(s, 1), s)), b.mul(v, scaled(3)));
  return {b.mul(dy(c), b.add(s, slope))};
}

std::vector<Value> silu_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value s = b.unary("sigmoid", x(c));
  return {b.mul(dy(c), b.mul(s, b.add(b.mul(x(c), b.sub(b.constant_like(s, 1), s)), 1)))};
}

std::vector<Value> mish_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value t = b.unary("tanh", b.unary("softplus", x(c)));
  const Value slope = b.mul(b.sub(b.constant_like(t, 1), b.mul(t, t)), b.unary("sigmoid", x(c)));
  return {b.mul(dy(c), b.add(t, b.mul(x(c), slope)))};
}

// 1 + sign x^2 of the operand.
Value one_plus_square(const VjpContext& c, double sign) {
  Builder& b = c.builder;
  return b.add(b.mul(b.mul(x(c), x(c)), sign), 1);
}

std::vector<Value> tan_vjp(const VjpContext& c) {
  return {c.builder.mul(dy(c), c.builder.add(c.builder.mul(y(c), y(c)), 1))};
}
std::vector<Value> asin_vjp(const VjpContext& c) {
  return {c.builder.mul(dy(c), c.builder.unary("rsqrt", one_plus_square(c, -1)))};
}
std::vector<Value> acos_vjp(const VjpContext& c) { return {c.builder.unary("neg", asin_vjp(c)[0])}; }
std::vector<Value> atan_vjp(const VjpContext& c) { return {c.builder.div(dy(c), one_plus_square(c, 1))}; }
std::vector<Value> sinh_vjp(const VjpContext& c) { return {c.builder.mul(dy(c), c.builder.unary("cosh", x(c)))}; }
std::vector<Value> cosh_vjp(const VjpContext& c) { return {c.builder.mul(dy(c), c.builder.unary("sinh", x(c)))}; }
std::vector<Value> asinh_vjp(const VjpContext& c) {
  return {c.builder.mul(dy(c), c.builder.unary("rsqrt", one_plus_square(c, 1)))};
}
std::vector<Value> acosh_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  return {b.mul(dy(c), b.unary("rsqrt", b.add(b.mul(x(c), x(c)), -1)))};
}
std::vector<Value> atanh_vjp(const VjpContext& c) { return {c.builder.div(dy(c), one_plus_square(c, -1))}; }

// x - n y, n towards zero: found from the result, as a quotient of x and y may round up to the next integer.
std::vector<Value> fmod_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value n = b.unary("round", b.div(b.sub(x(c), y(c)), c.operands[1]));
  return {dy(c), b.unary("neg", b.mul(dy(c), n))};
}

// The cotangent goes to the operand that won; a tie is split evenly.
std::vector<Value> extremum_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value zero = b.constant_like(dy(c), 0), half = b.mul(dy(c), 0.5);
  const Value tie = b.call("eq", {c.operands[0], c.operands[1]});
  const auto share = [&](Value operand) {
    return b.select(tie, half, b.select(b.call("eq", {operand, y(c)}), dy(c), zero));
  };
  return {share(c.operands[0]), share(c.operands[1])};
}

// Whether `v` is a sum or mean of powers above 1 of values, or of their magnitudes, scaled or reshaped: then its root
// is a norm or a deviation. Over one element it is the power itself: the sum may have been simplified away.
bool is_sum_of_powers(const Graph& graph, Value v) {
  const auto is = [](const Node& node, std::string_view op) { return node.op->name == op; };
  const auto constant = [&](Value operand) -> const Tensor* {
    const Node* made = &graph.node(operand);
    while (is(*made, "broadcast") || is(*made, "reshape") || is(*made, "cast")) made = &graph.node(made->operands[0]);
    return is(*made, "constant") ? &made->attributes.tensor("value") : nullptr;
  };
  const auto is_power = [&](const Node& node) {
    if (is(node, "abs")) return true;
    if (is(node, "mul")) return node.operands[0] == node.operands[1];
    if (!is(node, "pow")) return false;
    const Tensor* exponent = constant(node.operands[1]);
    return is(graph.node(node.operands[0]), "abs") ||
           (exponent && exponent->type.element_count() == 1 && exponent->at(0) > 1);
  };
  const Node* node = &graph.node(v);
  while (is(*node, "reshape") || is(*node, "broadcast") || is(*node, "cast") || is(*node, "mul") || is(*node, "div")) {
    const bool product = node->operands.size() == 2;
    if (product && is_power(*node)) return true;
    if (product && !constant(node->operands[1]) && !(is(*node, "mul") && constant(node->operands[0]))) return false;
    node = &graph.node(node->operands[product && constant(node->operands[0]) ? 1 : 0]);
  }
  if (is(*node, "reduce_sum") || is(*node, "avg_pool")) node = &graph.node(node->operands[0]);
  while (is(*node, "transpose") || is(*node, "pad") || is(*node, "reshape") || is(*node, "cast"))
    node = &graph.node(node->operands[0]);
  return is_power(*node);
}

// A norm has no slope at 0; the subgradient 0 is PyTorch's. Every other root's is infinite there.
Value flat_at_zero_norm(const VjpContext& c, Value slope, Value is_root = {}) {
  Builder& b = c.builder;
  if (!is_sum_of_powers(b.graph(), c.node.operands[0])) return slope;
  Value flat = b.call("eq", {y(c), b.constant_like(y(c), 0)});
  if (is_root) flat = b.call("and", {flat, is_root});
  return b.select(flat, b.constant_like(slope, 0), slope);
}

std::vector<Value> sqrt_vjp(const VjpContext& c) {
  return {flat_at_zero_norm(c, c.builder.div(c.builder.mul(dy(c), 0.5), y(c)))};
}

std::vector<Value> pow_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value base = c.operands[0], exponent = c.operands[1];
  // x^0 is 1 everywhere: its slope is 0 at 0 too, where the formula says 0 / 0.
  const Value slope = b.mul(exponent, b.call("pow", {base, b.add(exponent, -1)}));
  const Value flat = b.call("eq", {exponent, b.constant_like(exponent, 0)});
  const Value d_base = b.select(flat, b.constant_like(slope, 0), slope);
  // base 0 contributes 0 to the exponent's gradient, as in PyTorch.
  const Value positive = b.call("less", {b.constant_like(base, 0), base});
  const Value d_exponent = b.select(positive, b.mul(y(c), b.unary("log", base)), b.constant_like(base, 0));
  const Value is_root = b.call("less", {exponent, b.constant_like(exponent, 1)});
  return {flat_at_zero_norm(c, b.mul(dy(c), d_base), is_root), b.mul(dy(c), d_exponent)};
}

std::vector<Value> select_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value zero = b.constant_like(dy(c), 0);
  return {Value{}, b.select(c.operands[0], dy(c), zero), b.select(c.operands[0], zero, dy(c))};
}

std::vector<Value> cast_vjp(const VjpContext& c) {
  if (!is_floating(c.builder.dtype(x(c)))) return {Value{}};
  return {c.builder.cast(dy(c), c.builder.dtype(x(c)))};
}

constexpr std::string_view kDiscrete = "its result is discrete";

Op unary(std::string_view name, std::string_view onnx, Precision precision, ScalarBody body, VjpRule vjp) {
  return {.name = name,
          .onnx = onnx,
          .operands = {{"x"}},
          .type = floating_type,
          .precision = precision,
          .vjp = vjp,
          .body = body};
}

Op step_function(std::string_view name, std::string_view onnx, ScalarBody body) {
  return {.name = name, .onnx = onnx, .operands = {{"x"}}, .type = floating_type, .vjp = zero_vjp, .body = body};
}

Op arithmetic(std::string_view name, std::string_view onnx, ScalarBody body, VjpRule vjp,
              Precision precision = Precision::follow) {
  return {.name = name,
          .onnx = onnx,
          .operands = {{"x"}, {"y"}},
          .type = same_type,
          .precision = precision,
          .vjp = vjp,
          .body = body};
}

Op comparison(std::string_view name, std::string_view onnx, ScalarBody body) {
  return {.name = name,
          .onnx = onnx,
          .operands = {{"x"}, {"y"}},
          .type = predicate_type,
          .not_differentiable = kDiscrete,
          .body = body};
}

Op logical(std::string_view name, std::string_view onnx, std::vector<OperandSpec> operands, ScalarBody body) {
  return {.name = name,
          .onnx = onnx,
          .operands = std::move(operands),
          .type = logical_type,
          .not_differentiable = kDiscrete,
          .body = body};
}

Scalar number(Scalar like, double value) { return like.arithmetic->constant(value); }

// log(1 + u) to full precision for small u: what 1 + u rounds away is put back by the quotient (Kahan).
Scalar log1p_of(Scalar u) {
  const Scalar w = u + 1.0;
  const Scalar corrected = select(w == number(u, 1), u, log(w) * (u / (w - 1.0)));
  return select(number(u, 1e6) < w, log(w), corrected);
}

// log(1 + e^x) without overflow, and e^x where that is far below 1.
Scalar softplus_of(Scalar v) { return max(v, number(v, 0)) + log1p_of(exp(-abs(v))); }

// e^x - 1 to full precision near 0: what the exponential rounds away is put back by the quotient (Kahan).
Scalar expm1_of(Scalar v) {
  const Scalar u = exp(v), less = u - 1.0;
  const Scalar corrected = select(u == number(v, 1), v, less * (v / log(u)));
  return select(abs(v) < 1.0, corrected, less);
}

Scalar tan_of(Scalar v) { return sin(v) / cos(v); }

// Beyond 1 the reciprocal; two halvings of the angle, atan t = 2 atan(t / (1 + sqrt(1 + t^2))), bring |t| below 0.199,
// where 9 terms of the series are exact to 2^-50.
Scalar atan_of(Scalar v) {
  const Scalar a = abs(v), inverted = number(v, 1) < a;
  Scalar t = select(inverted, 1.0 / a, a);
  for (int halving = 0; halving < 2; ++halving) t = t / (sqrt(t * t + 1.0) + 1.0);
  const Scalar square = t * t;
  Scalar series = number(v, 1.0 / 21);
  for (int k = 19; k > 0; k -= 2) series = 1.0 / k - square * series;
  const Scalar angle = t * series * 4.0;
  const Scalar result = select(inverted, number(v, std::numbers::pi / 2) - angle, angle);
  return select(v < 0.0, -result, result);
}

Scalar asin_of(Scalar v) { return atan_of(v / sqrt((1.0 - v) * (v + 1.0))); }
// 2 atan of the half angle's tangent keeps its digits near 1.
Scalar acos_of(Scalar v) { return atan_of(sqrt((1.0 - v) / (v + 1.0))) * 2.0; }

// e^v / 2 without overflow before its own; half of v is exact.
Scalar half_exp(Scalar v) {
  const Scalar root = exp(v * 0.5);
  return root * (root * 0.5);
}
Scalar cosh_of(Scalar v) { return half_exp(abs(v)) + half_exp(-abs(v)); }
// Below 1 the series, as the exponentials cancel.
Scalar sinh_of(Scalar v) {
  const Scalar a = abs(v), square = v * v;
  Scalar series = number(v, 1);
  for (int k = 15; k > 1; k -= 2) series = series * square / static_cast<double>(k * (k - 1)) + 1.0;
  const Scalar large = half_exp(a) - half_exp(-a);
  return select(a < 1.0, v * series, select(v < 0.0, -large, large));
}

// Above 1e4 the square under the root is all there is to see, and its overflow is not.
Scalar asinh_of(Scalar v) {
  const Scalar a = abs(v), square = a * a;
  const Scalar exact = log1p_of(a + square / (sqrt(square + 1.0) + 1.0));
  const Scalar result = select(number(v, 1e4) < a, log(a) + std::numbers::ln2, exact);
  return select(v < 0.0, -result, result);
}
Scalar acosh_of(Scalar v) {
  const Scalar t = v - 1.0, exact = log1p_of(t + sqrt(t * (t + 2.0)));
  const Scalar result = select(number(v, 1e4) < v, log(v) + std::numbers::ln2, exact);
  return select(v < 1.0, number(v, std::numeric_limits<double>::quiet_NaN()), result);
}
Scalar atanh_of(Scalar v) {
  const Scalar a = abs(v), result = log1p_of(a * 2.0 / (1.0 - a)) * 0.5;
  return select(v < 0.0, -result, result);
}

template <Scalar (*Function)(Scalar)>
Op function(std::string_view name, std::string_view onnx, Precision precision, VjpRule vjp) {
  return unary(name, onnx, precision, [](const Attributes&, Args a) { return Function(a[0]); }, vjp);
}

const std::vector<Op> kOps{
    unary(
        "neg", "Neg", Precision::follow, [](const Attributes&, Args a) { return -a[0]; },
        [](const VjpContext& c) -> std::vector<Value> { return {c.builder.unary("neg", dy(c))}; }),
    unary(
        "abs", "Abs", Precision::follow, [](const Attributes&, Args a) { return abs(a[0]); }, abs_vjp),
    unary(
        "relu", "Relu", Precision::follow,
        [](const Attributes&, Args a) { return max(a[0], a[0].arithmetic->constant(0)); }, relu_vjp),
    unary(
        "exp", "Exp", Precision::full, [](const Attributes&, Args a) { return exp(a[0]); },
        [](const VjpContext& c) -> std::vector<Value> { return {c.builder.mul(dy(c), y(c))}; }),
    unary(
        "expm1", "", Precision::full, [](const Attributes&, Args a) { return expm1_of(a[0]); },
        [](const VjpContext& c) -> std::vector<Value> { return {c.builder.mul(dy(c), c.builder.add(y(c), 1))}; }),
    unary(
        "log", "Log", Precision::full, [](const Attributes&, Args a) { return log(a[0]); },
        [](const VjpContext& c) -> std::vector<Value> { return {c.builder.div(dy(c), x(c))}; }),
    unary(
        "sqrt", "Sqrt", Precision::follow, [](const Attributes&, Args a) { return sqrt(a[0]); }, sqrt_vjp),
    unary(
        "rsqrt", "", Precision::full, [](const Attributes&, Args a) { return 1.0 / sqrt(a[0]); },
        [](const VjpContext& c) -> std::vector<Value> {
          Builder& b = c.builder;
          return {b.mul(dy(c), b.mul(b.mul(y(c), b.mul(y(c), y(c))), -0.5))};
        }),
    unary(
        "reciprocal", "Reciprocal", Precision::full, [](const Attributes&, Args a) { return 1.0 / a[0]; },
        [](const VjpContext& c) -> std::vector<Value> {
          Builder& b = c.builder;
          return {b.unary("neg", b.mul(dy(c), b.mul(y(c), y(c))))};
        }),
    unary(
        "tanh", "Tanh", Precision::follow, [](const Attributes&, Args a) { return tanh(a[0]); }, tanh_vjp),
    unary(
        "sigmoid", "Sigmoid", Precision::follow, [](const Attributes&, Args a) { return logistic(a[0]); }, sigmoid_vjp),
    unary(
        "erf", "Erf", Precision::follow, [](const Attributes&, Args a) { return erf(a[0]); }, erf_vjp),
    unary(
        "sin", "Sin", Precision::full, [](const Attributes&, Args a) { return sin(a[0]); },
        [](const VjpContext& c) -> std::vector<Value> { return {c.builder.mul(dy(c), c.builder.unary("cos", x(c)))}; }),
    unary(
        "cos", "Cos", Precision::full, [](const Attributes&, Args a) { return cos(a[0]); },
        [](const VjpContext& c) -> std::vector<Value> {
          return {c.builder.unary("neg", c.builder.mul(dy(c), c.builder.unary("sin", x(c))))};
        }),
    function<tan_of>("tan", "Tan", Precision::full, tan_vjp),
    function<asin_of>("asin", "Asin", Precision::full, asin_vjp),
    function<acos_of>("acos", "Acos", Precision::full, acos_vjp),
    function<atan_of>("atan", "Atan", Precision::follow, atan_vjp),
    function<sinh_of>("sinh", "Sinh", Precision::full, sinh_vjp),
    function<cosh_of>("cosh", "Cosh", Precision::full, cosh_vjp),
    function<asinh_of>("asinh", "Asinh", Precision::follow, asinh_vjp),
    function<acosh_of>("acosh", "Acosh", Precision::follow, acosh_vjp),
    function<atanh_of>("atanh", "Atanh", Precision::follow, atanh_vjp),
    unary(
        "softplus", "Softplus", Precision::full, [](const Attributes&, Args a) { return softplus_of(a[0]); },
        [](const VjpContext& c) -> std::vector<Value> {
          return {c.builder.mul(dy(c), c.builder.unary("sigmoid", x(c)))};
        }),
    unary(
        "normal_cdf", "", Precision::follow, [](const Attributes&, Args a) { return normal_cdf(a[0]); },
        normal_cdf_vjp),
    unary(
        "normal_density", "", Precision::follow, [](const Attributes&, Args a) { return normal_density(a[0]); },
        normal_density_vjp),
    unary(
        "gelu", "", Precision::follow, [](const Attributes&, Args a) { return a[0] * normal_cdf(a[0]); }, gelu_vjp),
    unary(
        "gelu_tanh", "", Precision::follow,
        [](const Attributes&, Args a) {
          return a[0] * logistic(a[0] * (a[0] * a[0] * (2 * kGeluScale * kGeluCubic) + 2 * kGeluScale));
        },
        gelu_tanh_vjp),
    unary(
        "silu", "", Precision::follow, [](const Attributes&, Args a) { return a[0] * logistic(a[0]); }, silu_vjp),
    unary(
        "mish", "Mish", Precision::follow, [](const Attributes&, Args a) { return a[0] * tanh(softplus_of(a[0])); },
        mish_vjp),
    // Straight-through estimate (Bengio, Léonard and Courville 2013): quantisation trains as if it did not round.
    unary(
        "round_through", "", Precision::full, [](const Attributes&, Args a) { return round_even(a[0]); },
        [](const VjpContext& c) -> std::vector<Value> { return {dy(c)}; }),
    step_function("floor", "Floor", [](const Attributes&, Args a) { return floor(a[0]); }),
    step_function("ceil", "Ceil", [](const Attributes&, Args a) { return ceil(a[0]); }),
    step_function("round", "Round", [](const Attributes&, Args a) { return round_even(a[0]); }),
    step_function("sign", "Sign",
                  [](const Attributes&, Args a) {
                    const Scalar zero = a[0].arithmetic->constant(0), one = a[0].arithmetic->constant(1);
                    return select(zero < a[0], one, select(a[0] < zero, -one, a[0]));
                  }),
    {.name = "is_finite",
     .operands = {{"x"}},
     .type = predicate_type,
     .not_differentiable = kDiscrete,
     .body = [](const Attributes&, Args a) { return (a[0] - a[0]) == a[0].arithmetic->constant(0); }},
    {.name = "is_nan",
     .onnx = "IsNaN",
     .operands = {{"x"}},
     .type = predicate_type,
     .not_differentiable = kDiscrete,
     .body = [](const Attributes&, Args a) { return !(a[0] == a[0]); }},
    logical("not", "Not", {{"x"}}, [](const Attributes&, Args a) { return !a[0]; }),
    {.name = "cast",
     .operands = {{"x", OperandSpec::one, OperandSpec::keep}},
     .attributes = {{"to", DType::f32}},
     .type = cast_type,
     .vjp = cast_vjp,
     .body = [](const Attributes& attributes, Args a) { return convert(attributes.dtype("to"), a[0]); }},
    arithmetic(
        "add", "Add", [](const Attributes&, Args a) { return a[0] + a[1]; },
        [](const VjpContext& c) -> std::vector<Value> { return {dy(c), dy(c)}; }),
    // x + y where x is carried from step to step, as in a recurrent cell: a low sum would lose small steps.
    arithmetic(
        "accumulate", "", [](const Attributes&, Args a) { return a[0] + a[1]; },
        [](const VjpContext& c) -> std::vector<Value> { return {dy(c), dy(c)}; }, Precision::full),
    arithmetic(
        "sub", "Sub", [](const Attributes&, Args a) { return a[0] - a[1]; },
        [](const VjpContext& c) -> std::vector<Value> { return {dy(c), c.builder.unary("neg", dy(c))}; }),
    arithmetic(
        "mul", "Mul", [](const Attributes&, Args a) { return a[0] * a[1]; },
        [](const VjpContext& c) -> std::vector<Value> {
          return {c.builder.mul(dy(c), c.operands[1]), c.builder.mul(dy(c), c.operands[0])};
        }),
    // x * y in a product of many, which leaves a low range in few steps.
    arithmetic(
        "product", "", [](const Attributes&, Args a) { return a[0] * a[1]; },
        [](const VjpContext& c) -> std::vector<Value> {
          return {c.builder.mul(dy(c), c.operands[1]), c.builder.mul(dy(c), c.operands[0])};
        },
        Precision::full),
    arithmetic(
        "div", "Div", [](const Attributes&, Args a) { return a[0] / a[1]; },
        [](const VjpContext& c) -> std::vector<Value> {
          Builder& b = c.builder;
          return {b.div(dy(c), c.operands[1]), b.unary("neg", b.div(b.mul(dy(c), y(c)), c.operands[1]))};
        }),
    arithmetic(
        "pow", "", [](const Attributes&, Args a) { return pow(a[0], a[1]); }, pow_vjp, Precision::full),
    arithmetic(
        "fmod", "", [](const Attributes&, Args a) { return fmod(a[0], a[1]); }, fmod_vjp, Precision::full),
    arithmetic(
        "max", "", [](const Attributes&, Args a) { return max(a[0], a[1]); }, extremum_vjp),
    arithmetic(
        "min", "", [](const Attributes&, Args a) { return min(a[0], a[1]); }, extremum_vjp),
    comparison("eq", "Equal", [](const Attributes&, Args a) { return a[0] == a[1]; }),
    comparison("less", "Less", [](const Attributes&, Args a) { return a[0] < a[1]; }),
    comparison("less_equal", "LessOrEqual", [](const Attributes&, Args a) { return a[0] <= a[1]; }),
    logical("and", "And", {{"x"}, {"y"}}, [](const Attributes&, Args a) { return a[0] & a[1]; }),
    logical("or", "Or", {{"x"}, {"y"}}, [](const Attributes&, Args a) { return a[0] | a[1]; }),
    {.name = "select",
     .onnx = "Where",
     .operands = {{"condition"}, {"if_true"}, {"if_false"}},
     .type = select_type,
     .vjp = select_vjp,
     .body = [](const Attributes&, Args a) { return select(a[0], a[1], a[2]); }},
};

}  // namespace

std::span<const Op> pointwise_ops() { return kOps; }

}  // namespace halfstep
