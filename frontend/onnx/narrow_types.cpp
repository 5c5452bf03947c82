#include "frontend/onnx/narrow_types.h"

#include <cmath>
#include <limits>

namespace halfstep {
namespace {

constexpr NarrowType kTypes[] = {
    {17, "float8e4m3fn", 8, DType::f32, NarrowType::not_a_number, -448, 448, 3, 7},
    {18, "float8e4m3fnuz", 8, DType::f32, NarrowType::not_a_number, -240, 240, 3, 8, true},
    {19, "float8e5m2", 8, DType::f32, NarrowType::infinite, -57344, 57344, 2, 15},
    {20, "float8e5m2fnuz", 8, DType::f32, NarrowType::not_a_number, -57344, 57344, 2, 16, true},
    {21, "uint4", 4, DType::u8, NarrowType::wraps, 0, 15},
    {22, "int4", 4, DType::i8, NarrowType::wraps, -8, 7},
    {23, "float4e2m1", 4, DType::f32, NarrowType::largest, -6, 6, 1, 1},
    {25, "uint2", 2, DType::u8, NarrowType::wraps, 0, 3},
    {26, "int2", 2, DType::i8, NarrowType::wraps, -2, 1},
};

// The number that the code of a floating type stands for.
double floating_number(const NarrowType& type, int code) {
  const int sign_bit = 1 << (type.bits - 1), magnitude = code & (sign_bit - 1);
  const int exponent = magnitude >> type.mantissa, fraction = magnitude & ((1 << type.mantissa) - 1);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (type.unsigned_zero && code == sign_bit) return nan;
  double number = exponent == 0 ? std::ldexp(fraction, 1 - type.bias - type.mantissa)
                                : std::ldexp((1 << type.mantissa) + fraction, exponent - type.bias - type.mantissa);
  if (number > type.high) {  // codes behind the largest number
    const bool is_infinite = type.beyond == NarrowType::infinite && fraction == 0;
    number = is_infinite ? std::numeric_limits<double>::infinity() : nan;
  }
  return code & sign_bit ? -number : number;
}

// The distance of neighbours around x.
Value spacing(Builder& b, Value x, const NarrowType& type) {
  const Value magnitude = b.unary("abs", x);
  const auto power = [&](int exponent) { return b.constant_like(x, std::ldexp(1.0, exponent)); };
  Value result = power(1 - type.bias - type.mantissa);
  for (int e = 2 - type.bias; std::ldexp(1.0, e) <= type.high; ++e)
    result = b.select(b.binary("less_equal", power(e), magnitude), power(e - type.mantissa), result);
  return result;
}

Value rounded(Builder& b, Value x, const NarrowType& type, OutOfRange out_of_range) {
  if (!is_floating(b.dtype(x))) x = b.cast(x, DType::f32);
  const Value step = spacing(b, x, type);
  const Value y = b.mul(b.unary("round_through", b.div(x, step)), step);
  const Value low = b.constant_like(y, type.low), high = b.constant_like(y, type.high);
  if (type.beyond == NarrowType::largest || out_of_range == OutOfRange::saturates) {
    const Value inside = b.binary("min", b.binary("max", y, low), high);
    if (type.beyond != NarrowType::largest) return inside;
    return b.select(b.unary("is_nan", y), b.constant_like(y, 0), inside);  // the type has no such code
  }
  const bool infinite = type.beyond == NarrowType::infinite;
  const double beyond = infinite ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  const Value above = b.select(b.binary("less", high, y), b.constant_like(y, beyond), y);
  return b.select(b.binary("less", y, low), b.constant_like(y, -beyond), above);
}

Value wrapped(Builder& b, Value x, const NarrowType& type) {
  const Value whole = b.cast(x, DType::i64);
  const auto number = [&](double v) { return b.constant_like(whole, v); };
  const double span = type.high - type.low + 1;
  Value rest = b.sub(whole, b.mul(b.div(whole, number(span)), number(span)));  // division truncates
  rest = b.select(b.binary("less", rest, number(type.low)), b.add(rest, number(span)), rest);
  rest = b.select(b.binary("less", number(type.high), rest), b.sub(rest, number(span)), rest);
  return b.cast(rest, type.held);
}

}  // namespace

const NarrowType* find_narrow_type(int32_t onnx_type) {
  for (const NarrowType& type : kTypes)
    if (type.onnx == onnx_type) return &type;
  return nullptr;
}

double narrow_element(const NarrowType& type, std::string_view bytes, int64_t i) {
  const int64_t in_byte = 8 / type.bits;
  const int byte = static_cast<unsigned char>(bytes[static_cast<size_t>(i / in_byte)]);
  const int code = byte >> (i % in_byte * type.bits) & ((1 << type.bits) - 1);
  if (is_floating(type.held)) return floating_number(type, code);
  return code > type.high ? code - (1 << type.bits) : code;
}

Value narrowed(Builder& b, Value x, const NarrowType& type, OutOfRange out_of_range) {
  return is_floating(type.held) ? rounded(b, x, type, out_of_range) : wrapped(b, x, type);
}

}  // namespace halfstep
