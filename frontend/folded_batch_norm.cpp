#include "frontend/folded_batch_norm.h"

#include <google/protobuf/unknown_field_set.h>

#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "frontend/model_proto.h"

namespace halfstep {
namespace {

constexpr float kEpsilon = 1e-5f;           // PyTorch's default
constexpr int64_t kMostChannels = 1 << 24;  // of a filter

void add_channel_tensor(onnx::GraphProto& graph, const std::string& name, int64_t channels, float value) {
  onnx::TensorProto& tensor = *graph.add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  tensor.add_dims(channels);
  for (int64_t i = 0; i < channels; ++i) tensor.add_float_data(value);
}

}  // namespace

bool took_in_batch_norm(const onnx::NodeProto& node) {
  if (node.op_type() != "Conv" || node.output().empty()) return false;
  if (node.output(0).starts_with("getitem")) return true;
  for (int i = 0; i < node.unknown_fields().field_count(); ++i) {
    const google::protobuf::UnknownField& field = node.unknown_fields().field(i);
    if (field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED &&
        field.length_delimited().find("batch_norm") != std::string::npos)
      return true;
  }
  return false;
}

OnnxFile insert_batch_norms(const OnnxFile& file) {
  onnx::ModelProto model = parse_model(file);
  onnx::GraphProto& graph = *model.mutable_graph();
  std::map<std::string, int64_t> channels;  // of filters
  for (const onnx::TensorProto& tensor : graph.initializer())
    if (tensor.dims_size() > 2) channels[tensor.name()] = tensor.dims(0);
  google::protobuf::RepeatedPtrField<onnx::NodeProto> nodes;
  nodes.Swap(graph.mutable_node());
  int inserted = 0;
  for (int i = 0; i < nodes.size(); ++i) {
    onnx::NodeProto& convolution = *graph.add_node();
    convolution = nodes[i];
    const auto filter = convolution.input_size() > 1 ? channels.find(convolution.input(1)) : channels.end();
    if (!took_in_batch_norm(convolution) || filter == channels.end()) continue;
    if (filter->second < 0 || filter->second > kMostChannels)
      throw Error("node " + describe(convolution, i) + ": a filter of " + std::to_string(filter->second) + " channels");
    ++inserted;
    const std::string name = node_name(convolution, i) + ".bn", output = convolution.output(0);
    std::string bias = name + ".bias";
    if (convolution.input_size() > 2 && !convolution.input(2).empty()) {
      bias = convolution.input(2);
      convolution.mutable_input()->DeleteSubrange(2, 1);
    } else {
      add_channel_tensor(graph, bias, filter->second, 0);
    }
    convolution.set_output(0, name + ".input");
    add_channel_tensor(graph, name + ".scale", filter->second, 1);
    add_channel_tensor(graph, name + ".mean", filter->second, 0);
    add_channel_tensor(graph, name + ".variance", filter->second, 1 - kEpsilon);
    onnx::NodeProto& norm = *graph.add_node();
    norm.set_op_type("BatchNormalization");
    norm.set_name(name);
    for (const std::string& input : {name + ".input", name + ".scale", bias, name + ".mean", name + ".variance"})
      norm.add_input(input);
    norm.add_output(output);
    onnx::AttributeProto& epsilon = *norm.add_attribute();
    epsilon.set_name("epsilon");
    epsilon.set_type(onnx::AttributeProto::FLOAT);
    epsilon.set_f(kEpsilon);
  }
  if (inserted == 0)
    throw Error("model '" + file.name + "': no convolution took in a batch norm at export, there is none to put back");
  return {file.name, model.SerializeAsString(), file.directory};
}

}  // namespace halfstep
