// Sums of sizes that are told or compared, and never allocated.
#pragma once

#include <cstdint>

namespace halfstep {

// Of sizes from 0: the greatest number stands for all beyond it.
inline int64_t saturated_add(int64_t a, int64_t b) {
  int64_t r;
  return __builtin_add_overflow(a, b, &r) ? INT64_MAX : r;
}

}  // namespace halfstep
