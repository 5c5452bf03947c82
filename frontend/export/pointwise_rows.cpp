// Pointwise ops: one ONNX operator where the IR's row names it, else the scalar body written as ONNX nodes.
#include <algorithm>
#include <array>
#include <numbers>

#include "base/error.h"
#include "frontend/export/operator_rows.h"

namespace halfstep {
namespace {

// Engines compute with integers of 32 and 64 bits.
DType wide_integer(DType type) { return type == DType::u8 || type == DType::i8 ? DType::i32 : type; }

std::vector<OnnxValue> widened(const ExportContext& c) {
  std::vector<OnnxValue> operands;
  for (const OnnxValue& operand : c.operands)
    operands.push_back(c.onnx.cast(operand, wide_integer(operand.type.dtype)));
  return operands;
}

std::vector<OnnxValue> one_to_one(const ExportContext& c) {
  require(!c.node.op->onnx.empty(), "the IR's row names the ONNX operator");
  TensorType type = c.results[0];
  type.dtype = wide_integer(type.dtype);
  return {c.onnx.node(c.node.op->onnx, widened(c), std::move(type))};
}

std::vector<OnnxValue> comparison(const ExportContext& c) {
  return {c.onnx.compare(c.node.op->onnx, widened(c)[0], widened(c)[1])};
}

// The carrier of a scalar body that writes ONNX nodes.
class BodyWriter final : public ScalarArithmetic {
 public:
  explicit BodyWriter(const ExportContext& context) : onnx_(context.onnx) {
    for (const OnnxValue& operand : widened(context)) operands_.push_back(carry(operand));
    if (!context.operands.empty()) type_ = wide_integer(context.operands[0].type.dtype);
  }

  OnnxValue write(const Node& node) {
    return values_[static_cast<size_t>(index(node.op->body(node.attributes, operands_)))];
  }

  Scalar constant(double value) override { return carry(onnx_.scalar(type_, value)); }

  Scalar unary(ScalarOp op, Scalar x) override {
    if (op == ScalarOp::normal_distribution) return (erf(x * (std::numbers::sqrt2 / 2)) + 1.0) * 0.5;
    if (op == ScalarOp::normal_density) return exp(x * x * -0.5) * (std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    constexpr std::array<std::string_view, 16> names{"Neg", "Abs",     "Sqrt", "Exp", "Log",   "Sin",  "Cos",   "Tanh",
                                                     "Erf", "Sigmoid", "",     "",    "Floor", "Ceil", "Round", "Not"};
    return carry(onnx_.unary(names[static_cast<size_t>(op)], value(x)));
  }

  Scalar binary(ScalarOp op, Scalar x, Scalar y) override {
    constexpr std::array<std::string_view, 12> names{"Add", "Sub",   "Mul",  "Div",         "Pow", "Max",
                                                     "Min", "Equal", "Less", "LessOrEqual", "And", "Or"};
    const std::string_view name = names[static_cast<size_t>(op) - static_cast<size_t>(ScalarOp::add)];
    const bool compares = op == ScalarOp::equal || op == ScalarOp::less || op == ScalarOp::less_equal;
    return carry(compares ? onnx_.compare(name, value(x), value(y)) : onnx_.binary(name, value(x), value(y)));
  }

  Scalar select(Scalar condition, Scalar if_true, Scalar if_false) override {
    return carry(onnx_.select(value(condition), value(if_true), value(if_false)));
  }

  Scalar convert(DType, Scalar) override { throw InternalError("no body but cast's converts"); }

 private:
  // A handle is a position in `values_`, counted from 1.
  Scalar carry(OnnxValue v) {
    values_.push_back(std::move(v));
    return {.arithmetic = this, .handle = reinterpret_cast<void*>(values_.size())};
  }
  static int64_t index(Scalar x) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(x.handle)) - 1; }
  OnnxValue value(Scalar x) const { return values_[static_cast<size_t>(index(x))]; }

  OnnxBuilder& onnx_;
  DType type_ = DType::f32;  // of the body's constants
  std::vector<OnnxValue> values_;
  std::vector<Scalar> operands_;
};

std::vector<OnnxValue> from_body(const ExportContext& c) { return {BodyWriter(c).write(c.node)}; }

std::vector<OnnxValue> is_finite(const ExportContext& c) {
  const TensorType type = c.results[0];
  const OnnxValue infinite = c.onnx.node("IsInf", {c.operands[0]}, type),
                  nan = c.onnx.node("IsNaN", {c.operands[0]}, type);
  return {c.onnx.unary("Not", c.onnx.binary("Or", infinite, nan))};
}

// To an integer or a boolean ours saturates and ONNX leaves open what is beyond the type: NaN and infinity first.
std::vector<OnnxValue> cast(const ExportContext& c) {
  const OnnxValue& x = c.operands[0];
  const DType to = c.node.attributes.dtype("to");
  if (!is_floating(x.type.dtype) || is_floating(to) || to == DType::boolean) return {c.onnx.cast(x, to)};
  constexpr double kFirstBeyond64 = 0x1p63, kFirstBeyond32 = 0x1p31;
  const double beyond = to == DType::i64   ? kFirstBeyond64
                        : to == DType::i32 ? kFirstBeyond32
                        : to == DType::u8  ? 256
                                           : 128;
  const double lowest = to == DType::u8 ? 0 : -beyond, highest = beyond - 1;
  const OnnxValue wide = c.onnx.cast(x, DType::f32);
  const OnnxValue zero = c.onnx.scalar(DType::f32, 0);
  const OnnxValue nan = c.onnx.node("IsNaN", {wide}, {DType::boolean, wide.type.shape});
  const OnnxValue number = c.onnx.select(nan, zero, wide);
  // Whole numbers of 32 bits and more are none of f32: what is beyond is chosen after the cast.
  const OnnxValue above = c.onnx.compare("GreaterOrEqual", number, c.onnx.scalar(DType::f32, beyond)),
                  below = c.onnx.compare("Less", number, c.onnx.scalar(DType::f32, lowest));
  const OnnxValue inside = c.onnx.select(c.onnx.binary("Or", above, below), zero, number);
  const OnnxValue whole = c.onnx.cast(inside, DType::i64);
  Tensor most(TensorType{DType::i64, {}}), least = most;
  most.as<int64_t>()[0] = to == DType::i64 ? INT64_MAX : static_cast<int64_t>(highest);
  least.as<int64_t>()[0] = to == DType::i64 ? INT64_MIN : static_cast<int64_t>(lowest);
  const OnnxValue saturated =
      c.onnx.select(above, c.onnx.constant(most), c.onnx.select(below, c.onnx.constant(least), whole));
  return {c.onnx.cast(saturated, to)};
}

// Engines choose between numbers; between booleans by logic.
std::vector<OnnxValue> select(const ExportContext& c) {
  OnnxBuilder& o = c.onnx;
  if (c.results[0].dtype != DType::boolean)
    return {o.cast(o.select(c.operands[0], o.cast(c.operands[1], wide_integer(c.results[0].dtype)),
                            o.cast(c.operands[2], wide_integer(c.results[0].dtype))),
                   c.results[0].dtype)};
  return {o.binary("Or", o.binary("And", c.operands[0], c.operands[1]),
                   o.binary("And", o.unary("Not", c.operands[0]), c.operands[2]))};
}

std::vector<OnnxValue> remainder(const ExportContext& c) {
  return {c.onnx.node("Mod", widened(c), c.results[0], {{"fmod", int64_t{1}}})};
}

constexpr ExportRow kRows[] = {
    {"neg", one_to_one},          {"abs", one_to_one},       {"relu", one_to_one},
    {"exp", one_to_one},          {"expm1", from_body},      {"log", one_to_one},
    {"sqrt", one_to_one},         {"rsqrt", from_body},      {"reciprocal", one_to_one},
    {"tanh", one_to_one},         {"sigmoid", one_to_one},   {"erf", one_to_one},
    {"sin", one_to_one},          {"cos", one_to_one},       {"tan", one_to_one},
    {"asin", one_to_one},         {"acos", one_to_one},      {"atan", one_to_one},
    {"sinh", one_to_one},         {"cosh", one_to_one},      {"asinh", one_to_one},
    {"acosh", one_to_one},        {"atanh", one_to_one},     {"softplus", from_body},  // engines lose its tail

    {"gelu", from_body},          {"normal_cdf", from_body}, {"normal_density", from_body},
    {"gelu_tanh", from_body},     {"silu", from_body},       {"mish", from_body},
    {"round_through", from_body}, {"floor", one_to_one},     {"ceil", one_to_one},
    {"round", one_to_one},        {"sign", one_to_one},      {"is_finite", is_finite},
    {"is_nan", one_to_one},       {"not", one_to_one},       {"cast", cast},
    {"add", one_to_one},          {"accumulate", from_body}, {"sub", one_to_one},
    {"mul", one_to_one},          {"product", from_body},    {"div", one_to_one},
    {"pow", from_body},           {"fmod", remainder},       {"max", from_body},
    {"min", from_body},           {"eq", comparison},        {"less", comparison},
    {"less_equal", comparison},   {"and", one_to_one},       {"or", one_to_one},
    {"select", select},
};

}  // namespace

std::span<const ExportRow> pointwise_rows() { return kRows; }

}  // namespace halfstep
