#include "runtime/cpu/product_rate.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <dnnl.hpp>

namespace halfstep {
namespace {

using Clock = std::chrono::steady_clock;

// As many sums as hide an instruction's latency.
constexpr int kSums = 12, kLength = 500, kRepeats = 12;
// Rates differ by factors of two, so that no measuring error crosses this; equal rates do not pay for conversions.
constexpr double kWorthwhile = 1.5;

#define HALFSTEP_TIME_SUMS(...)                                                                \
  __m512 sums[kSums];                                                                          \
  for (__m512 & sum : sums) sum = _mm512_setzero_ps();                                         \
  const Clock::time_point start = Clock::now();                                                \
  for (int i = 0; i < kLength; ++i) _Pragma("GCC unroll 12") for (int s = 0; s < kSums; ++s) { \
      sums[s] = __VA_ARGS__;                                                                   \
      __asm__ volatile("" : "+v"(sums[s]));                                                    \
    }                                                                                          \
  return std::chrono::duration<double>(Clock::now() - start).count();

__attribute__((target("avx512f"))) double time_fp32() {
  const __m512 factor = _mm512_set1_ps(0.5F);
  HALFSTEP_TIME_SUMS(_mm512_fmadd_ps(factor, factor, sums[s]))
}

__attribute__((target("avx512f,avx512bf16"))) double time_bf16() {
  const __m512bh factor = (__m512bh)_mm512_set1_epi16(0x3f00);
  HALFSTEP_TIME_SUMS(_mm512_dpbf16_ps(sums[s], factor, factor))
}

}  // namespace

Bf16Products bf16_products() {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  if (isa < dnnl::cpu_isa::avx512_core_bf16) return Bf16Products::slower;
  if (isa > dnnl::cpu_isa::avx512_core_bf16) return Bf16Products::faster;
  double fp32 = 1, bf16 = 1;
  for (int i = 0; i < kRepeats; ++i) {
    fp32 = std::min(fp32, time_fp32());
    bf16 = std::min(bf16, time_bf16());
  }
  // An instruction multiplies twice as many.
  return 2 * fp32 > kWorthwhile * bf16 ? Bf16Products::faster : Bf16Products::slower;
}

}  // namespace halfstep
