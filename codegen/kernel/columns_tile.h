// How a GPU's blocks lie over columns: what the schedule splits them by, and what the emitter builds.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "base/checked.h"

namespace halfstep {

constexpr int64_t kProcessors = 128;  // about as many as large GPUs have
constexpr int64_t kWarp = 32, kColumnsBlock = 256;

// The vectors that a block's threads stand beside each other on, of `vectors` in a row, `outer` times. Few columns:
// narrower tiles, for more processors and more threads to a column; two vectors are what memory moves.
inline int64_t columns_width(int64_t vectors, int64_t outer) {
  int64_t width = std::min(kWarp, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(vectors))));
  while (width > 2 && ceil_div(vectors, width) * outer < kProcessors) width /= 2;
  return width;
}

}  // namespace halfstep
