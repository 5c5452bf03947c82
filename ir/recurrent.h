// The sizes of a node `recurrent`, or of its gradient, from its attributes.
#pragma once

#include "base/recurrent.h"
#include "base/tensor.h"
#include "ir/attributes.h"

namespace halfstep {

inline constexpr int64_t kMostRecurrentLayers = 64;  // of one node

// On x [steps, batch, inputs]. Throws Error where there is no such cell, or a size is none.
RecurrentSizes recurrent_sizes(const Attributes& attributes, const TensorType& x);

}  // namespace halfstep
