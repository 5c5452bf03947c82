// What stands beside a node as metadata: what PyTorch's default exporter writes about the model that it came from, and
// what we do.
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

// Writes an entry of metadata_props, which ONNX has from IR version 10 on, in the place of one of this key.
void set_metadata(onnx::NodeProto& node, const std::string& key, const std::string& value);

}  // namespace halfstep
