// How fast the CPU multiplies bf16 beside fp32.
#pragma once

#include <cstdint>

namespace halfstep {

enum class Bf16Products : uint8_t { slower, faster };
// Whether products of bf16 operands take fewer cycles in the CPU's bf16 instructions than widened, in fp32. With
// AVX-512 alone these run at half to twice the rate of fp32's, by model, so that they are timed: some 0.1 ms. With AMX
// they are always faster.
Bf16Products bf16_products();

}  // namespace halfstep
