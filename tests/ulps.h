// Operands that go through all of f32, and how far a result is from the exact one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/tensor.h"

namespace halfstep {

// Evenly spaced bit patterns: every binade of both signs.
inline Tensor all_magnitudes(int64_t count) {
  Tensor t({DType::f32, {count}});
  for (int64_t i = 0; i < count; ++i)
    t.as<uint32_t>()[static_cast<size_t>(i)] =
        static_cast<uint32_t>(static_cast<uint64_t>(i) * 0x100000000ull / static_cast<uint64_t>(count));
  return t;
}

inline Tensor range(int64_t count, double low, double high) {
  Tensor t({DType::f32, {count}});
  for (int64_t i = 0; i < count; ++i)
    t.set(i, low + (high - low) * static_cast<double>(i) / static_cast<double>(count - 1));
  return t;
}

// Distance in units in the last place of the correctly rounded result; subnormals share the smallest unit.
inline double ulps(float actual, double exact) {
  const float rounded = static_cast<float>(exact);
  if (std::isnan(actual) && std::isnan(exact)) return 0;
  if (actual == rounded) return 0;
  if (!std::isfinite(rounded) || !std::isfinite(actual)) {
    // At the threshold of overflow the largest number and infinity are neighbours.
    return std::abs(exact) > 3.4028e38 && std::abs(static_cast<double>(actual)) > 3.4028e38 ? 1 : INFINITY;
  }
  const double unit = std::ldexp(1, std::max(std::ilogb(rounded == 0 ? 0x1p-149f : rounded), -126) - 23);
  return std::abs(static_cast<double>(actual) - exact) / unit;
}

}  // namespace halfstep
