// Biases of zeros that the optimizer of PyTorch's default exporter removed.
#pragma once

#include <vector>

#include "frontend/onnx/model_proto.h"

namespace halfstep {

struct RemovedBias {
  int node = 0;  // of the main graph
  const onnx::TensorProto* weight = nullptr;
  int64_t size = 0;
};

// Known is this of products, which PyTorch writes as another operator or under another name if they have no bias, and
// of convolutions beside which the exporter wrote the call: without that they look the same whether their bias was
// removed or never there.
std::vector<RemovedBias> find_removed_biases(const onnx::ModelProto& model);

}  // namespace halfstep
