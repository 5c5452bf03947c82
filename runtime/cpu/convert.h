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

}  // namespace halfstep
