// The IDX format of the MNIST family: two zero bytes, a type code, the rank, big-endian dimensions and elements.
#pragma once

#include "data/sample_values.h"

namespace halfstep {

// Throws Error naming the source and what is wrong with it.
Tensor read_idx(ByteSource& source);
// The same; beyond `memory` bytes samples of bytes stay where they are (see read_samples).
SampleValues read_idx_samples(ByteSource& source, int64_t memory);

}  // namespace halfstep
