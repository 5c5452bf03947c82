// One hash of several.
#pragma once

#include <cstddef>

namespace halfstep {

constexpr size_t combine(size_t seed, size_t value) {
  return seed ^ (value + 0x9e3779b97f4a7c15ull + (seed << 6) + (seed >> 2));
}

}  // namespace halfstep
