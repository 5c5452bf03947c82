// Arithmetic on untrusted sizes: every overflow is an Error, before anything is allocated.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/error.h"

namespace halfstep {

inline int64_t checked_mul(int64_t a, int64_t b, const std::string& what) {
  int64_t r;
  if (__builtin_mul_overflow(a, b, &r)) throw Error(what + ": size overflows 64 bits");
  return r;
}

inline int64_t checked_add(int64_t a, int64_t b, const std::string& what) {
  int64_t r;
  if (__builtin_add_overflow(a, b, &r)) throw Error(what + ": size overflows 64 bits");
  return r;
}

// No tensor has more: its bytes in any type, its strides and sums of some of them fit 64 bits.
constexpr int64_t kMostTensorElements = int64_t{1} << 56;

// Whether all dimensions are from 0, and their product fits. A zero does not hide what stands beside it, since strides
// and parts of a shape are products too.
constexpr bool fits(std::span<const int64_t> shape) {
  int64_t count = 1;
  for (int64_t d : shape)
    if (d < 0 || (d > 0 && (__builtin_mul_overflow(count, d, &count) || count > kMostTensorElements))) return false;
  return true;
}

// Product of non-negative dimensions; a negative one is an Error too.
inline int64_t checked_element_count(std::span<const int64_t> shape, const std::string& what) {
  int64_t count = 1;
  for (int64_t d : shape) {
    if (d < 0) throw Error(what + ": dimension " + std::to_string(d) + " is negative");
    if (d == 0) count = 0;
  }
  if (!fits(shape)) throw Error(what + ": size overflows 64 bits");
  for (int64_t d : shape) count *= d;
  return count;
}

// Of values from 0.
inline int64_t ceil_div(int64_t value, int64_t divisor) { return value / divisor + (value % divisor > 0); }
inline int64_t round_up(int64_t value, int64_t multiple) {
  int64_t r;
  if (__builtin_mul_overflow(ceil_div(value, multiple), multiple, &r)) throw Error("a size overflows 64 bits");
  return r;
}

// A file's number as an integer, towards zero; one that is no number, or none of 64 bits, is an Error.
inline int64_t checked_integer(double value, const std::string& what) {
  if (!(value >= -0x1p63 && value < 0x1p63))
    throw Error(what + ": a number of 64 bits expected, found " + std::to_string(value));
  return static_cast<int64_t>(value);
}

}  // namespace halfstep
