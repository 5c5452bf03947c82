#include "frontend/repairs/removed_biases.h"

#include <map>
#include <string>
#include <string_view>

#include "base/checked.h"
#include "frontend/onnx/exporter_metadata.h"

namespace halfstep {
namespace {

// The exporter numbers the nodes that it writes anew, "node_Gemm_1086"; their results keep the name they had before.
bool was_written_anew(const onnx::NodeProto& node) {
  const std::string prefix = "node_" + node.op_type() + "_";
  return node.name().size() > prefix.size() && node.name().starts_with(prefix) &&
         node.name().find_first_not_of("0123456789", prefix.size()) == std::string::npos && node.output_size() == 1 &&
         !is_exporters_name(node.output(0));
}

int64_t attribute_or(const onnx::NodeProto& node, std::string_view name, int64_t otherwise) {
  for (const onnx::AttributeProto& attribute : node.attribute())
    if (attribute.name() == name) return attribute.i();
  return otherwise;
}

bool is_convolution(const onnx::NodeProto& node) {
  return node.op_type() == "Conv" || node.op_type() == "ConvTranspose";
}

bool lost_bias(const onnx::NodeProto& node) {
  if (node.input_size() != 2 || !was_written_anew(node)) return false;
  if (node.op_type() == "Gemm") return true;
  const TracedCall call = traced_call(node);
  return is_convolution(node) && call.target.starts_with("torch.ops.aten.conv") && call.arguments.size() > 2 &&
         call.arguments[2].starts_with('%');
}

// Outputs of the product, or channels of the convolution; 0 if the weight is none of either.
int64_t bias_size(const onnx::NodeProto& node, const onnx::TensorProto& weight) {
  if (node.op_type() == "Gemm")
    return weight.dims_size() == 2 ? weight.dims(attribute_or(node, "transB", 0) != 0 ? 0 : 1) : 0;
  if (weight.dims_size() < 3) return 0;
  if (node.op_type() == "Conv") return weight.dims(0);
  return checked_mul(weight.dims(1), attribute_or(node, "group", 1), "channels of '" + node.name() + "'");
}

}  // namespace

std::vector<RemovedBias> find_removed_biases(const onnx::ModelProto& model) {
  std::vector<RemovedBias> result;
  if (model.producer_name() != "pytorch") return result;
  std::map<std::string, const onnx::TensorProto*> weights;
  for (const onnx::TensorProto& tensor : model.graph().initializer())
    if (tensor.data_type() == onnx::TensorProto::FLOAT) weights[tensor.name()] = &tensor;
  for (int i = 0; i < model.graph().node_size(); ++i) {
    const onnx::NodeProto& node = model.graph().node(i);
    if (!lost_bias(node)) continue;
    const auto weight = weights.find(node.input(1));
    if (weight == weights.end()) continue;
    if (const int64_t size = bias_size(node, *weight->second); size > 0) result.push_back({i, weight->second, size});
  }
  return result;
}

}  // namespace halfstep
