#include "runtime/cpu/convert.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/clones.h"
#include "base/error.h"

// The loops over integers are left to the compiler's vectoriser, which -O2 holds back.
#pragma GCC optimize("O3")

#define HALFSTEP_ALL_CLONES HALFSTEP_CLONES("arch=x86-64-v4", "arch=x86-64-v3", "default")

namespace halfstep {
namespace {

__attribute__((target("avx2,f16c"))) void widen_half_f16c(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  for (; i < count; ++i) to[i] = _cvtsh_ss(from[i]);
}

__attribute__((target("avx2,f16c"))) void narrow_half_f16c(const float* from, uint16_t* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < count; ++i) to[i] = _cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT);
}

bool has_f16c() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

void widen_half(const uint16_t* from, float* to, int64_t count) {
  if (has_f16c()) return widen_half_f16c(from, to, count);
  for (int64_t i = 0; i < count; ++i) to[i] = float_from_half(from[i]);
}

void narrow_half(const float* from, uint16_t* to, int64_t count) {
  if (has_f16c()) return narrow_half_f16c(from, to, count);
  for (int64_t i = 0; i < count; ++i) to[i] = half_from_float(from[i]);
}

HALFSTEP_ALL_CLONES void widen_bfloat16(const uint16_t* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = std::bit_cast<float>(static_cast<uint32_t>(from[i]) << 16);
}

HALFSTEP_ALL_CLONES void narrow_bfloat16(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(from[i]);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const uint32_t quiet_nan = bits >> 16 | 0x40;
    to[i] = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : rounded);
  }
}

HALFSTEP_ALL_CLONES void relu_float(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = values[i] < 0 ? 0 : values[i];
}

HALFSTEP_ALL_CLONES void relu_bfloat16(uint16_t* values, int64_t count) {
  constexpr uint16_t kNegativeZero = 0x8000, kNegativeInfinity = 0xff80;
  for (int64_t i = 0; i < count; ++i)
    values[i] = values[i] > kNegativeZero && values[i] <= kNegativeInfinity ? 0 : values[i];
}

// Between rows of pixels, [count, channels], and blocks of which each takes `pixels` places.
HALFSTEP_ALL_CLONES void rows_to_blocks(const float* rows, float* blocks, int64_t pixels, int64_t count,
                                        int64_t channels) {
  for (int64_t c = 0; c < channels; c += kChannelBlock)
    for (int64_t i = 0; i < count; ++i) {
      const float* const from = rows + i * channels + c;
      float* const to = blocks + c * pixels + i * kChannelBlock;
      std::memcpy(to, from, kChannelBlock * sizeof(float));
    }
}

HALFSTEP_ALL_CLONES void blocks_to_rows(const float* blocks, float* rows, int64_t pixels, int64_t count,
                                        int64_t channels) {
  for (int64_t c = 0; c < channels; c += kChannelBlock)
    for (int64_t i = 0; i < count; ++i) {
      const float* const from = blocks + c * pixels + i * kChannelBlock;
      float* const to = rows + i * channels + c;
      std::memcpy(to, from, kChannelBlock * sizeof(float));
    }
}

// Floats that stay in the first cache between a conversion and a transposition, and the channels these allow.
constexpr int64_t kTileFloats = 4 << 10;

// body(pixel of the part, count): as many pixels as the tile holds.
template <typename Body>
void for_each_tile(const PixelRange& part, const Body& body) {
  const int64_t step = std::max<int64_t>(1, kTileFloats / part.channels);
  for (int64_t i = 0; i < part.count; i += step) body(part.begin + i, std::min(step, part.count - i));
}

}  // namespace

void widen(DType type, const std::byte* from, float* to, int64_t count) {
  switch (type) {
    case DType::f16:
      return widen_half(reinterpret_cast<const uint16_t*>(from), to, count);
    case DType::bf16:
      return widen_bfloat16(reinterpret_cast<const uint16_t*>(from), to, count);
    default:
      break;
  }
  require(type == DType::f32, "widen reads f16, bf16 or f32");
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void narrow(DType type, const float* from, std::byte* to, int64_t count) {
  switch (type) {
    case DType::f16:
      return narrow_half(from, reinterpret_cast<uint16_t*>(to), count);
    case DType::bf16:
      return narrow_bfloat16(from, reinterpret_cast<uint16_t*>(to), count);
    default:
      break;
  }
  require(type == DType::f32, "narrow writes f16, bf16 or f32");
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void relu(DType type, std::byte* values, int64_t count) {
  if (type == DType::bf16) return relu_bfloat16(reinterpret_cast<uint16_t*>(values), count);
  require(type == DType::f32, "relu works on bf16 or f32");
  relu_float(reinterpret_cast<float*>(values), count);
}

void block_channels(DType type, const std::byte* from, float* to, const PixelRange& part) {
  std::vector<float> tile(type == DType::f32 ? 0 : static_cast<size_t>(std::max(kTileFloats, part.channels)));
  for_each_tile(part, [&](int64_t pixel, int64_t count) {
    const std::byte* const stored = from + pixel * part.channels * size_of(type);
    if (type != DType::f32) widen(type, stored, tile.data(), count * part.channels);
    rows_to_blocks(type == DType::f32 ? reinterpret_cast<const float*>(stored) : tile.data(),
                   to + pixel * kChannelBlock, part.pixels, count, part.channels);
  });
}

void unblock_channels(const float* from, DType type, std::byte* to, const PixelRange& part) {
  std::vector<float> tile(type == DType::f32 ? 0 : static_cast<size_t>(std::max(kTileFloats, part.channels)));
  for_each_tile(part, [&](int64_t pixel, int64_t count) {
    std::byte* const stored = to + pixel * part.channels * size_of(type);
    float* const rows = type == DType::f32 ? reinterpret_cast<float*>(stored) : tile.data();
    blocks_to_rows(from + pixel * kChannelBlock, rows, part.pixels, count, part.channels);
    if (type != DType::f32) narrow(type, rows, stored, count * part.channels);
  });
}

}  // namespace halfstep
