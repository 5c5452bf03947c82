// Vectorised conversion between the storage types and float, with the results of base/dtype.h. One thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace halfstep {

// `type` is f16, bf16 or f32.
void widen(DType type, const std::byte* from, float* to, int64_t count);
void narrow(DType type, const float* from, std::byte* to, int64_t count);

// In place: negative values become 0, NaN stays NaN. `type` is bf16 or f32.
void relu(DType type, std::byte* values, int64_t count);

// Channels last to oneDNN's blocks of 16 channels, [pixels, channels] to f32 [channels / 16, pixels, 16], and back:
// `count` pixels from `begin` of an image that has `pixels` of them, its channels a multiple of 16. Pointers are to the
// image.
struct PixelRange {
  int64_t pixels = 0, channels = 0, begin = 0, count = 0;
};
constexpr int64_t kChannelBlock = 16;
void block_channels(DType type, const std::byte* from, float* to, const PixelRange& part);
void unblock_channels(const float* from, DType type, std::byte* to, const PixelRange& part);

}  // namespace halfstep
