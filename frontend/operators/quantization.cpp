// Quantisation. It trains by the straight-through estimate: within the range as if nothing were rounded.
#include <algorithm>

#include "base/checked.h"
#include "base/dtype.h"
#include "frontend/import/operators.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/operators/window.h"

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

// Each element of `x` beside its block along `axis`.
Value of_blocks(NodeContext& c, size_t i, size_t axis, int64_t block) {
  Builder& b = c.b;
  const Shape x = c.shape(0), given = c.shape(i);
  Shape expected = x;
  expected[axis] = ceil_div(x[axis], block);
  if (given != expected)
    c.fail("operand " + std::to_string(i) + " " + to_string(expected) + " expected for blocks of " +
           std::to_string(block) + ", found " + to_string(given));
  Shape apart = given, together = given;
  apart.insert(apart.begin() + static_cast<std::ptrdiff_t>(axis) + 1, 1);
  Shape copies = apart;
  copies[axis + 1] = block;
  together[axis] = checked_mul(given[axis], block, "blocks");
  const Value repeated = b.reshape(b.broadcast(b.reshape(c.operand(i), apart), copies), together);
  return b.slice(repeated, Ints(x.size(), 0), x);
}

// A scale or zero point as what broadcasts to operand 0: one number, or one for each position on an axis.
Value along_axis(NodeContext& c, size_t i) {
  const Shape shape = c.shape(i), x = c.shape(0);
  const int64_t axis = c.integer("axis", 1);
  if (shape.empty() || shape == Shape{1}) return c.b.reshape(c.operand(i), {});
  if (const int64_t block = c.integer("block_size", 0); block > 0)
    return of_blocks(c, i, c.axis(axis, x.size()), block);
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
  if (c.integer("block_size", 0) < 0) c.fail("attribute 'block_size' is negative");
}

// x / scale, rounded and moved by the zero point (absent: 0) into the range of `type`, still floating. Bounds move
// instead of the sum, so that nothing is rounded twice.
Value quantized(NodeContext& c, Value x, Value scale, Value zero_point, const Range& range) {
  Builder& b = c.b;
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

// What is quantised to: the type of the zero point or, without one, of the attribute.
struct Quantity {
  DType held;
  Range range;
  const NarrowType* narrow = nullptr;
};

Quantity quantity_of(NodeContext& c, int32_t onnx_type) {
  if (const NarrowType* narrow = find_narrow_type(onnx_type))
    return {narrow->held, {narrow->low, narrow->high}, narrow};
  if (onnx_type == onnx::TensorProto::INT16) return {DType::i32, {-32768, 32767}};
  if (onnx_type == onnx::TensorProto::UINT16) return {DType::i32, {0, 65535}};
  const std::optional<DType> type = element_type(onnx_type);
  if (!type) c.fail("quantisation to " + element_type_name(onnx_type) + " is not supported");
  return {*type, range_of(c, *type)};
}

Quantity quantity(NodeContext& c, int32_t asked) {
  if (!c.has_operand(2)) return asked == 0 ? Quantity{DType::u8, {0, 255}} : quantity_of(c, asked);
  const DType type = c.b.dtype(c.operand(2));
  const NarrowType* narrow = c.narrow_type(2);
  const Quantity to = narrow                ? quantity_of(c, narrow->onnx)
                      : c.is_initializer(2) ? quantity_of(c, c.binding(2).tensor->data_type())
                                            : Quantity{type, range_of(c, type)};
  const Quantity wanted = asked == 0 ? to : quantity_of(c, asked);
  if (wanted.held != to.held || wanted.narrow != to.narrow)
    c.fail("the zero point is " + std::string(narrow ? narrow->name : name(type)) + ", attribute 'output_dtype' " +
           element_type_name(asked));
  return to;
}

bool is_zero(NodeContext& c, size_t i) {
  return std::ranges::all_of(c.constant(i, "zero point").values(), [](double v) { return v == 0; });
}

std::vector<Value> import_quantize(NodeContext& c) {
  Builder& b = c.b;
  check_attributes(c);
  const auto asked = static_cast<int32_t>(c.integer("output_dtype", 0));
  const Quantity to = quantity(c, asked);
  const Value scale = along_axis(c, 1);
  const Value x = is_floating(b.dtype(c.operand(0))) ? c.operand(0) : b.cast(c.operand(0), b.dtype(scale));
  if (to.narrow) c.set_narrow_type(0, *to.narrow);
  if (is_floating(to.held)) {
    if (c.has_operand(2) && !is_zero(c, 2)) c.fail("a zero point of 0 expected for " + std::string(to.narrow->name));
    const bool saturates = c.integer("saturate", 1) != 0;
    return {narrowed(b, b.div(x, scale), *to.narrow, saturates ? OutOfRange::saturates : OutOfRange::overflows)};
  }
  return {b.cast(quantized(c, x, scale, c.has_operand(2) ? along_axis(c, 2) : Value{}, to.range), to.held)};
}

std::vector<Value> import_dequantize(NodeContext& c) {
  Builder& b = c.b;
  check_attributes(c);
  c.ignore({"output_dtype"});
  const DType type = b.dtype(c.operand(0));
  if (c.has_operand(2) && c.narrow_type(2) != c.narrow_type(0)) c.fail("values and zero point differ in type");
  if (!c.narrow_type(0) && type != DType::u8 && type != DType::i8 && type != DType::i32)
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
  return {b.cast(quantized(c, x, scale, zero_point, {0, 255}), DType::u8), scale, zero_point};
}

// ---- products of integers, exact in i32 ----

// An 8-bit operand less its zero point, which is `beside` it or one number.
Value centred(NodeContext& c, size_t i, size_t zero_point, const Shape& beside) {
  Builder& b = c.b;
  const DType type = b.dtype(c.operand(i));
  range_of(c, type);
  const Value x = b.cast(c.operand(i), DType::i32);
  if (!c.has_operand(zero_point)) return x;
  if (b.dtype(c.operand(zero_point)) != type)
    c.fail("operand " + std::to_string(i) + " and its zero point differ in type");
  const bool one = b.type(c.operand(zero_point)).element_count() == 1;
  const Value point = b.reshape(c.operand(zero_point), one ? Shape() : beside);
  return b.sub(x, b.cast(point, DType::i32));
}

// A zero point or scale of [n] beside one axis of `rank`; another has all axes already.
Shape beside_axis(NodeContext& c, size_t i, size_t axis, size_t rank) {
  if (!c.has_operand(i) || c.shape(i).size() != 1) return c.has_operand(i) ? c.shape(i) : Shape();
  Shape shape(rank, 1);
  shape[axis] = c.shape(i)[0];
  return shape;
}

struct Places {
  size_t x, x_zero_point, w, w_zero_point;
};

Value integer_matmul(NodeContext& c, const Places& at) {
  Builder& b = c.b;
  const Shape x = c.shape(at.x), w = c.shape(at.w);
  if (x.size() < 2 || w.size() < 2 || x.back() != w[w.size() - 2])
    c.fail("matrices that multiply expected, found " + to_string(x) + " and " + to_string(w));
  Shape rows = x, columns = w;
  rows.push_back(1);
  columns.insert(columns.end() - 2, 1);
  const Value left = centred(c, at.x, at.x_zero_point, beside_axis(c, at.x_zero_point, x.size() - 2, x.size())),
              right = centred(c, at.w, at.w_zero_point, beside_axis(c, at.w_zero_point, w.size() - 1, w.size()));
  const Value products = b.mul(b.reshape(left, rows), b.reshape(right, columns));  // [..., m, k, n]
  Shape result = b.shape(products);
  const auto inner = static_cast<int64_t>(result.size()) - 2;
  result.erase(result.end() - 2);
  return b.reshape(b.reduce("reduce_sum", products, {inner}), result);
}

// The sum over the elements of the window, of one product each.
Value integer_conv(NodeContext& c, const Places& at) {
  Builder& b = c.b;
  const Shape x = c.shape(at.x), w = c.shape(at.w);
  const Shape spatial = spatial_shape(c, x), window(w.begin() + std::min<std::ptrdiff_t>(2, std::ssize(w)), w.end());
  const int64_t groups = c.integer("group", 1), filters = w.empty() ? 0 : w[0];
  if (w.size() != x.size() || groups <= 0 || w[1] * groups != x[1] || filters % groups != 0 ||
      c.int_list("kernel_shape", window) != window)
    c.fail("x " + to_string(x) + " and w " + to_string(w) + " in " + std::to_string(groups) + " groups do not fit");
  const Window g = read_window(c, spatial, window, CeilMode::absent);
  constexpr int64_t kLargestWindow = 1024;
  const int64_t taps = checked_element_count(window, "w");
  if (taps == 0 || taps > kLargestWindow) c.fail("a window of " + std::to_string(taps) + " elements");
  Ints low(x.size(), 0), high = low;
  Shape out(spatial.size());
  for (size_t i = 0; i < spatial.size(); ++i) {
    low[i + 2] = g.pads_begin[i], high[i + 2] = g.pads_end[i];
    const int64_t reach = (window[i] - 1) * g.dilations[i] + 1, padded = spatial[i] + low[i + 2] + high[i + 2];
    if (padded < reach) c.fail("a window of " + to_string(window) + " is larger than x " + to_string(x));
    out[i] = (padded - reach) / g.strides[i] + 1;
  }
  const Value image = b.call("pad", {centred(c, at.x, at.x_zero_point, {})}, {{"low", low}, {"high", high}});
  const Value all = centred(c, at.w, at.w_zero_point, beside_axis(c, at.w_zero_point, 0, w.size()));
  Shape piece{x[0], groups, 1, x[1] / groups}, tap_shape{1, groups, filters / groups, w[1]};
  piece.insert(piece.end(), out.begin(), out.end());
  tap_shape.insert(tap_shape.end(), out.size(), 1);
  const std::vector<int64_t> strides = row_major_strides(window);
  Value sum;
  for (int64_t tap = 0; tap < taps; ++tap) {
    Ints starts(x.size(), 0), limits = b.shape(image), steps(x.size(), 1), from(w.size(), 0), to = w;
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t element = tap / strides[i] % window[i];
      starts[i + 2] = element * g.dilations[i], steps[i + 2] = g.strides[i];
      limits[i + 2] = starts[i + 2] + (out[i] - 1) * g.strides[i] + 1;
      from[i + 2] = element, to[i + 2] = element + 1;
    }
    const Value product =
        b.mul(b.reshape(b.slice(image, starts, limits, steps), piece), b.reshape(b.slice(all, from, to), tap_shape));
    const Value part = b.reduce("reduce_sum", product, {3});
    sum = sum ? b.add(sum, part) : part;
  }
  Shape result{x[0], filters};
  result.insert(result.end(), out.begin(), out.end());
  return b.reshape(sum, result);
}

std::vector<Value> import_matmul_integer(NodeContext& c) { return {integer_matmul(c, {0, 2, 1, 3})}; }
std::vector<Value> import_conv_integer(NodeContext& c) { return {integer_conv(c, {0, 2, 1, 3})}; }

// x, its scale and zero point, w and its own, scale and zero point of the result.
std::vector<Value> requantized(NodeContext& c, Value sum, const Shape& x_scale, const Shape& w_scale) {
  Builder& b = c.b;
  for (size_t i : {1u, 4u, 6u})
    if (!is_floating(b.dtype(c.operand(i)))) c.fail("operand " + std::to_string(i) + ": a floating scale expected");
  if (b.type(c.operand(6)).element_count() != 1 || (c.has_operand(7) && b.type(c.operand(7)).element_count() != 1))
    c.fail("one scale and one zero point of the result expected");
  const Value scale =
      b.div(b.mul(b.reshape(c.operand(1), x_scale), b.reshape(c.operand(4), w_scale)), b.reshape(c.operand(6), {}));
  const Value ratio = b.mul(b.cast(sum, b.dtype(scale)), scale);
  const Value point = c.has_operand(7) ? b.reshape(c.operand(7), {}) : Value{};
  const DType type = b.dtype(c.operand(c.has_operand(7) ? 7 : 0));
  return {b.cast(quantized(c, ratio, b.constant(b.dtype(ratio), 1), point, range_of(c, type)), type)};
}

std::vector<Value> import_qlinear_matmul(NodeContext& c) {
  const Shape x = c.shape(0), w = c.shape(3);
  const Value sum = integer_matmul(c, {0, 2, 3, 5});
  return requantized(c, sum, beside_axis(c, 1, x.size() - 2, x.size()), beside_axis(c, 4, w.size() - 1, w.size()));
}

std::vector<Value> import_qlinear_conv(NodeContext& c) {
  Builder& b = c.b;
  Value sum = integer_conv(c, {0, 2, 3, 5});
  if (c.has_operand(8)) {
    if (c.shape(8) != Shape{c.shape(3)[0]} || b.dtype(c.operand(8)) != DType::i32)
      c.fail("a bias i32" + to_string(Shape{c.shape(3)[0]}) + " expected");
    sum = b.add(sum, b.reshape(c.operand(8), beside_axis(c, 8, 1, c.shape(0).size())));
  }
  if (b.type(c.operand(1)).element_count() != 1) c.fail("one scale of x expected");
  const bool one = b.type(c.operand(4)).element_count() == 1;
  return requantized(c, sum, {}, one ? Shape() : beside_axis(c, 4, 1, c.shape(0).size()));
}

constexpr std::string_view kLimits =
    "8-, 16-, 4- and 2-bit integers, 8- and 4-bit floating types (i32 to dequantize); one scale for all, for each "
    "position on an axis or for each block; the gradient passes a pair of "
    "QuantizeLinear and DequantizeLinear without a node between";

constexpr std::string_view kIntegers = "u8 and i8; no gradient";

const std::vector<OnnxOperator> kRows{
    {"ConvInteger", {10}, 2, 4, import_conv_integer, kIntegers},
    {"DequantizeLinear", {10, 13, 19, 21, 23}, 2, 3, import_dequantize, kLimits, nullptr, OnnxOperator::read},
    {"DynamicQuantizeLinear", {11}, 1, 1, import_dynamic_quantize},
    {"MatMulInteger", {10}, 2, 4, import_matmul_integer, kIntegers},
    {"QLinearConv", {10}, 8, 9, import_qlinear_conv, kIntegers},
    {"QLinearMatMul", {10, 21}, 8, 8, import_qlinear_matmul, kIntegers},
    {"QuantizeLinear", {10, 13, 19, 21, 23}, 2, 3, import_quantize, kLimits, nullptr, OnnxOperator::read},
};

}  // namespace

std::span<const OnnxOperator> quantization_operators() { return kRows; }

}  // namespace halfstep
