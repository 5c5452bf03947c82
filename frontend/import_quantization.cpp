// Quantisation. It trains by the straight-through estimate: within the range as if nothing were rounded.
#include "base/dtype.h"
#include "frontend/operators.h"
#include "frontend/tensor_data.h"

namespace halfstep {
namespace {

struct Range {
  double low, high;
};

Range range_of(NodeContext& c, DType type) {
  if (type == DType::u8) return {0, 255};
  if (type == DType::i8) return {-128, 127};
  c.fail("quantisation to " + std::string(name(type)) + " is not supported; u8 and i8 are");
}

// A scale or zero point as what broadcasts to operand 0: one number, or one for each position on an axis.
Value along_axis(NodeContext& c, size_t i) {
  const Shape shape = c.shape(i), x = c.shape(0);
  const int64_t axis = c.integer("axis", 1);
  if (shape.empty() || shape == Shape{1}) return c.b.reshape(c.operand(i), {});
  if (c.version < 13 || shape.size() > 1)
    c.fail("a scale and a zero point of one number" + std::string(c.version < 13 ? "" : ", or one for an axis,") +
           " expected, found " + to_string(shape));
  const size_t at = c.axis(axis, x.size());
  if (shape[0] != x[at])
    c.fail("operand " + std::to_string(i) + " " + to_string(shape) + " does not fit axis " + std::to_string(at) +
           " of " + to_string(x));
  Shape column(x.size(), 1);
  column[at] = shape[0];
  return c.b.reshape(c.operand(i), column);
}

// Attributes that mean nothing to 8-bit integers, or whose floating types Halfstep assigns.
void check_attributes(NodeContext& c) {
  c.integer("axis", 1);
  c.ignore({"saturate", "precision"});
  if (c.integer("block_size", 0) != 0) c.fail("blocks of one scale are not supported; leave out 'block_size'");
}

// x / scale, rounded and moved by the zero point (absent: 0) into the range of `type`, still floating. Bounds move
// instead of the sum, so that nothing is rounded twice.
Value quantized(NodeContext& c, Value x, Value scale, Value zero_point, DType type) {
  Builder& b = c.b;
  const Range range = range_of(c, type);
  const Value ratio = b.div(x, scale);
  if (zero_point) zero_point = b.cast(zero_point, b.dtype(ratio));
  const auto bound = [&](double limit) {
    return zero_point ? b.sub(b.constant_like(zero_point, limit), zero_point) : b.constant_like(ratio, limit);
  };
  const Value inside = b.binary("min", b.binary("max", ratio, bound(range.low)), bound(range.high));
  const Value rounded = b.unary("round_through", inside);
  return zero_point ? b.add(rounded, zero_point) : rounded;
}

// What `quantized` gave before it became integers, which have no gradient; otherwise absent.
Value before_integers(const Graph& graph, Value v) {
  const Node& cast = graph.node(v);
  if (cast.op->name != "cast" || !is_floating(graph.type(cast.operands[0]).dtype)) return {};
  const Node& sum = graph.node(cast.operands[0]);
  const Node& rounded = sum.op->name == "add" ? graph.node(sum.operands[0]) : sum;
  return rounded.op->name == "round_through" ? cast.operands[0] : Value{};
}

std::vector<Value> import_quantize(NodeContext& c) {
  Builder& b = c.b;
  check_attributes(c);
  const auto asked = static_cast<int32_t>(c.integer("output_dtype", 0));
  const std::optional<DType> output = asked == 0 ? DType::u8 : element_type(asked);
  if (!output) c.fail("quantisation to " + element_type_name(asked) + " is not supported; u8 and i8 are");
  const DType type = c.has_operand(2) ? b.dtype(c.operand(2)) : *output;
  if (asked != 0 && type != *output)
    c.fail("the zero point is " + std::string(name(type)) + ", attribute 'output_dtype' " + std::string(name(*output)));
  const Value scale = along_axis(c, 1);
  const Value x = is_floating(b.dtype(c.operand(0))) ? c.operand(0) : b.cast(c.operand(0), b.dtype(scale));
  return {b.cast(quantized(c, x, scale, c.has_operand(2) ? along_axis(c, 2) : Value{}, type), type)};
}

std::vector<Value> import_dequantize(NodeContext& c) {
  Builder& b = c.b;
  check_attributes(c);
  c.ignore({"output_dtype"});
  const DType type = b.dtype(c.operand(0));
  if (type != DType::u8 && type != DType::i8 && type != DType::i32)
    c.fail("u8, i8 or i32 expected, found " + to_string(b.type(c.operand(0))));
  if (c.has_operand(2) && b.dtype(c.operand(2)) != type)
    c.fail("values " + std::string(name(type)) + " and zero point " + std::string(name(b.dtype(c.operand(2)))) +
           " differ in type");
  const Value scale = along_axis(c, 1), shadow = before_integers(b.graph(), c.operand(0));
  const Value x = shadow ? shadow : b.cast(c.operand(0), b.dtype(scale));
  return {b.mul(c.has_operand(2) ? b.sub(x, b.cast(along_axis(c, 2), b.dtype(x))) : x, scale)};
}

// The range of x and zero in 255 steps.
std::vector<Value> import_dynamic_quantize(NodeContext& c) {
  Builder& b = c.b;
  const Value x = c.operand(0);
  if (!is_floating(b.dtype(x))) c.fail("floating values expected, found " + to_string(b.type(x)));
  Ints all_axes;
  for (size_t i = 0; i < c.shape(0).size(); ++i) all_axes.push_back(static_cast<int64_t>(i));
  const auto extreme = [&](std::string_view of_all, std::string_view of_two) {
    const Value found = b.reshape(b.reduce(of_all, x, all_axes), {});
    return b.binary(of_two, found, b.constant_like(found, 0));
  };
  const Value low = extreme("reduce_min", "min"), width = b.sub(extreme("reduce_max", "max"), low);
  const Value one = b.constant_like(width, 1);
  const Value scale = b.mul(b.select(b.binary("eq", width, b.constant_like(width, 0)), one, width), 1.0 / 255);
  const Value zero_point = b.cast(b.unary("round", b.unary("neg", b.div(low, scale))), DType::u8);
  return {b.cast(quantized(c, x, scale, zero_point, DType::u8), DType::u8), scale, zero_point};
}

constexpr std::string_view kLimits =
    "u8 and i8 (i32 to dequantize), one scale for all or for each position on an axis; the gradient passes a pair of "
    "QuantizeLinear and DequantizeLinear without a node between";

const std::vector<OnnxOperator> kRows{
    {"DequantizeLinear", {10, 13, 19, 21, 23}, 2, 3, import_dequantize, kLimits},
    {"DynamicQuantizeLinear", {11}, 1, 1, import_dynamic_quantize},
    {"QuantizeLinear", {10, 13, 19, 21, 23}, 2, 3, import_quantize, kLimits},
};

}  // namespace

std::span<const OnnxOperator> quantization_operators() { return kRows; }

}  // namespace halfstep
