// What PyTorch's default exporter writes beside a node about the model that it came from.
#pragma once

#include <string>
#include <vector>

#include "frontend/onnx/model_proto.h"

namespace halfstep {

// The module that the node belongs to: "encoder.layers.0.norm". Empty if unknown.
std::string module_of(const onnx::NodeProto& node);

struct TracedCall {
  std::string target;                  // "torch.ops.aten.conv2d.default"; empty if unknown
  std::vector<std::string> arguments;  // "%x", "%p_conv_weight", "None", "[1, 1]"
};
// The call that the node was exported from.
TracedCall traced_call(const onnx::NodeProto& node);

}  // namespace halfstep
