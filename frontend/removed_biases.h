// Biases of zeros that the optimizer of PyTorch's default exporter removed.
#pragma once

#include <vector>

#include "frontend/model_proto.h"

namespace halfstep {

struct RemovedBias {
  int node = 0;  // of the main graph
  const onnx::TensorProto* weight = nullptr;
  int64_t size = 0;
};

// Known is this of products: PyTorch writes one without a bias as another operator, or under another name. A
// convolution looks the same whether its bias was removed or never there.
std::vector<RemovedBias> find_removed_biases(const onnx::ModelProto& model);

}  // namespace halfstep
