// Elements of fewer bits than any type here has. They are held exactly: 8- and 4-bit floating numbers as f32, 4- and
// 2-bit integers as i8 and u8. Only casts and quantisation read and write them, so that no other operator takes one for
// what holds it.
#pragma once

#include <cstdint>
#include <string_view>

#include "ir/builder.h"

namespace halfstep {

struct NarrowType {
  enum Beyond : uint8_t { wraps, not_a_number, infinite, largest };

  int32_t onnx;
  const char* name;
  int bits;
  DType held;
  Beyond beyond;               // what becomes of a number out of range where nothing saturates
  double low, high;            // the range
  int mantissa = 0;            // bits, of a floating type
  int bias = 0;                // of the exponent
  bool unsigned_zero = false;  // the code of -0 is the only one that is not a number
};

// Nothing for any other type.
const NarrowType* find_narrow_type(int32_t onnx_type);
// Element i of packed ones, the first in the low bits of its byte.
double narrow_element(const NarrowType& type, std::string_view bytes, int64_t i);
// x as the type holds it: floating types round to nearest even, integers drop fractions and wrap. Its gradient passes
// as if nothing were rounded.
enum class OutOfRange : uint8_t { saturates, overflows };
Value narrowed(Builder& b, Value x, const NarrowType& type, OutOfRange out_of_range);

}  // namespace halfstep
