// The IDX format of the MNIST family: two zero bytes, a type code, the rank, big-endian dimensions and elements.
#pragma once

#include "data/byte_source.h"

namespace halfstep {

// Throws Error naming the source and what is wrong with it.
Tensor read_idx(ByteSource& source);

}  // namespace halfstep
