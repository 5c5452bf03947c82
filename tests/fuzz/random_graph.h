// Random graphs of the ops of the table, in f32: 2 to 12 ops in the places where kernels are fused, over shapes with
// axes of 0 and 1, constants of all sizes, and values with ties, zeros and saturation. Whole motifs stand for what
// networks write in several ops: cut parameters, masked rows of attention, norms of zero, rotary positions,
// probabilities near 0 and 1.
#pragma once

#include "tests/fuzz/check.h"

namespace halfstep::fuzz {

// The same for the same seed everywhere.
FuzzCase random_case(uint64_t seed);

}  // namespace halfstep::fuzz
