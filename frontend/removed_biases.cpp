#include "frontend/removed_biases.h"

#include <map>
#include <string>

namespace halfstep {
namespace {

// The exporter numbers the nodes that it writes anew, "node_Gemm_1086"; their results keep the name they had before.
bool was_written_anew(const onnx::NodeProto& node) {
  const std::string prefix = "node_" + node.op_type() + "_";
  return node.name().size() > prefix.size() && node.name().starts_with(prefix) &&
         node.name().find_first_not_of("0123456789", prefix.size()) == std::string::npos && node.output_size() == 1 &&
         !is_exporters_name(node.output(0));
}

bool is_transposed(const onnx::NodeProto& gemm) {
  for (const onnx::AttributeProto& attribute : gemm.attribute())
    if (attribute.name() == "transB") return attribute.i() != 0;
  return false;
}

}  // namespace

std::vector<RemovedBias> find_removed_biases(const onnx::ModelProto& model) {
  std::vector<RemovedBias> result;
  if (model.producer_name() != "pytorch") return result;
  std::map<std::string, const onnx::TensorProto*> weights;
  for (const onnx::TensorProto& tensor : model.graph().initializer())
    if (tensor.dims_size() == 2 && tensor.data_type() == onnx::TensorProto::FLOAT) weights[tensor.name()] = &tensor;
  for (int i = 0; i < model.graph().node_size(); ++i) {
    const onnx::NodeProto& node = model.graph().node(i);
    if (node.op_type() != "Gemm" || node.input_size() != 2 || !was_written_anew(node)) continue;
    if (const auto weight = weights.find(node.input(1)); weight != weights.end())
      result.push_back({i, weight->second, weight->second->dims(is_transposed(node) ? 0 : 1)});
  }
  return result;
}

}  // namespace halfstep
