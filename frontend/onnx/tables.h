// Initializers that are no weights: what an exporter computed once and wrote down. Training leaves them as they are.
#pragma once

#include "frontend/onnx/tensor_data.h"

namespace halfstep {

// Seen in the data, where there is any. A mask holds nothing but zeros and numbers that stand for minus infinity, or
// only zeros [batch, 1, n, n]; a table of positions holds cosines and sines of multiples of the row, the powers that
// these are computed of, biases that grow with the distance, or coordinates; a coefficient is one number under the name
// of a folded constant, a vector of ones or zeros under one, or one number repeated under the name of an operator that
// fills tensors. Names that end in "weight" or "bias" are weights.
bool is_table(const onnx::TensorProto& tensor, const TensorReader& reader);

}  // namespace halfstep
