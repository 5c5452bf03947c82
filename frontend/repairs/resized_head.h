// A last layer that gives another number of classes: transfer learning begins with it.
#pragma once

#include <string>

#include "frontend/onnx/onnx_model.h"

namespace halfstep {

struct ResizedHead {
  std::string node;          // the last layer
  std::string weight, bias;  // its initializers; the second may be ""
  int64_t features = 0, classes_before = 0;
};

// `model` with the layer before output `output` ("": the only one) giving `classes`. It is found from the output back
// through what is computed class by class (softmax, the sum of a bias) or only moves values: a Gemm, a MatMul with its
// Add, or a convolution 1x1. Its weight and bias have no values any more (OnnxModel::fresh), output and shapes on the
// way are those of `classes`. Error naming the node where the way back ends elsewhere, where the weight is tied to
// another or read by another node, and where others read what the layer gives.
OnnxModel resize_head(OnnxModel model, const std::string& output, int64_t classes, ResizedHead* found = nullptr);

}  // namespace halfstep
