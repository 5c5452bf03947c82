// Weights that an exporter stored as Constant nodes, as those of PaddlePaddle, spox and CNTK do.
#pragma once

#include "frontend/onnx/model_proto.h"

namespace halfstep {

// Makes initializers of the main graph's floating Constant nodes whose value is read, itself or reshaped, transposed or
// cast, as a weight: by a convolution, a product, a norm, a recurrence, a table of embeddings, or as a vector that is
// added to what a convolution or product makes, or scales and shifts what a norm that is written out makes. Names are
// those of the nodes' results. PyTorch's exporters store weights otherwise, and their Constants stay what they are.
void store_constant_weights(onnx::ModelProto& model);

}  // namespace halfstep
