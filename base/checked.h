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

// Product of non-negative dimensions; a negative one is an Error too.
inline int64_t checked_element_count(std::span<const int64_t> shape, const std::string& what) {
  int64_t count = 1;
  for (int64_t d : shape) {
    if (d < 0) throw Error(what + ": dimension " + std::to_string(d) + " is negative");
    count = checked_mul(count, d, what);
  }
  return count;
}

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
inline int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace halfstep
