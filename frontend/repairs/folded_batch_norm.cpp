#include "frontend/repairs/folded_batch_norm.h"

#include <fnmatch.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "frontend/onnx/model_proto.h"

namespace halfstep {
namespace {

constexpr double kEpsilon = 1e-5;  // PyTorch's default
constexpr int64_t kMostChannels = int64_t{1} << 24;

void add_channel_tensor(onnx::GraphProto& graph, const std::string& name, int64_t channels, double value) {
  onnx::TensorProto& tensor = *graph.add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  tensor.add_dims(channels);
  for (int64_t i = 0; i < channels; ++i) tensor.add_float_data(static_cast<float>(value));
}

int64_t integer_of(const onnx::NodeProto& node, std::string_view name, int64_t otherwise) {
  for (const onnx::AttributeProto& attribute : node.attribute())
    if (attribute.name() == name) return attribute.i();
  return otherwise;
}

double number_of(const onnx::NodeProto& node, std::string_view name, double otherwise) {
  for (const onnx::AttributeProto& attribute : node.attribute())
    if (attribute.name() == name) return attribute.f();
  return otherwise;
}

bool takes_batch_norms(const onnx::NodeProto& node) {
  return node.op_type() == "Conv" || node.op_type() == "ConvTranspose" ||
         (node.op_type() == "Gemm" && number_of(node, "alpha", 1) == 1 && number_of(node, "beta", 1) == 1);
}

// Of the layer's result; 0: unknown.
int64_t channels_of(const onnx::NodeProto& node, int index, const onnx::TensorProto& weight) {
  if (weight.dims_size() < 2) return 0;
  const int64_t channels = node.op_type() == "Conv"            ? weight.dims(0)
                           : node.op_type() == "ConvTranspose" ? weight.dims(1) * integer_of(node, "group", 1)
                                                               : weight.dims(integer_of(node, "transB", 0) ? 0 : 1);
  if (channels < 1 || channels > kMostChannels)
    throw Error("node " + describe(node, index) + ": a filter of " + std::to_string(channels) + " channels");
  return channels;
}

bool tells_of_batch_norm(const std::string& name) {
  for (const std::string_view word : {"batch_norm", "BatchNorm", "batchnorm", "fused_bn"})
    if (name.find(word) != std::string::npos) return true;
  return false;
}

}  // namespace

bool took_in_batch_norm(const onnx::NodeProto& node) {
  if (!takes_batch_norms(node) || node.output().empty()) return false;
  // PyTorch's default exporter: the batch norm was a tuple, of which this was an item.
  if (node.output(0).starts_with("getitem")) return true;
  // TensorFlow's converter names the result, or the weights that it made, after the batch norm.
  if (tells_of_batch_norm(node.output(0))) return true;
  for (int i = 1; i < node.input_size(); ++i)
    if (tells_of_batch_norm(node.input(i))) return true;
  // PyTorch's TorchScript exporter numbers what it makes: both, where it folded a batch norm.
  if (node.op_type() == "Conv" && node.input_size() > 2 && node.input(1).starts_with("onnx::Conv_") &&
      node.input(2).starts_with("onnx::Conv_"))
    return true;
  for (int i = 0; i < node.unknown_fields().field_count(); ++i) {
    const google::protobuf::UnknownField& field = node.unknown_fields().field(i);
    if (field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED &&
        field.length_delimited().find("batch_norm") != std::string::npos)
      return true;
  }
  return false;
}

double assumed_epsilon(const OnnxModel& model, const BatchNormOptions& options) {
  if (options.epsilon) return *options.epsilon;
  std::set<double> kept;
  for (const onnx::NodeProto& node : model.proto().graph().node())
    if (node.op_type() == "BatchNormalization") kept.insert(number_of(node, "epsilon", kEpsilon));
  return kept.size() == 1 ? *kept.begin() : kEpsilon;
}

OnnxModel insert_batch_norms(OnnxModel model, const BatchNormOptions& options) {
  const double epsilon = assumed_epsilon(model, options);
  onnx::GraphProto& graph = *model.edit().mutable_graph();
  std::map<std::string, onnx::TensorProto> weights;  // without their data
  std::set<std::string> vectors;
  for (const onnx::TensorProto& tensor : graph.initializer()) {
    onnx::TensorProto& weight = weights[tensor.name()];
    weight.set_name(tensor.name());
    *weight.mutable_dims() = tensor.dims();
    if (tensor.dims_size() == 1) vectors.insert(tensor.name());
  }
  std::vector<std::string> layers;
  std::set<std::string> matched;
  const auto is_wanted = [&](const onnx::NodeProto& node, const std::string& name) {
    bool wanted = options.after.empty() && took_in_batch_norm(node);
    for (const std::string& pattern : options.after)
      if (fnmatch(pattern.c_str(), name.c_str(), 0) == 0) wanted = true, matched.insert(pattern);
    return wanted;
  };
  google::protobuf::RepeatedPtrField<onnx::NodeProto> nodes;
  nodes.Swap(graph.mutable_node());
  int inserted = 0;
  for (int i = 0; i < nodes.size(); ++i) {
    onnx::NodeProto& layer = *graph.add_node();
    layer = nodes[i];
    const auto weight = layer.input_size() > 1 ? weights.find(layer.input(1)) : weights.end();
    const bool has_bias = layer.input_size() > 2 && !layer.input(2).empty();
    if (!takes_batch_norms(layer) || weight == weights.end() || layer.output_size() != 1 ||
        (has_bias && !vectors.contains(layer.input(2))))
      continue;
    layers.push_back(node_name(layer, i));
    const int64_t channels = is_wanted(layer, layers.back()) ? channels_of(layer, i, weight->second) : 0;
    if (channels == 0) continue;
    ++inserted;
    const std::string name = layers.back() + ".bn", output = layer.output(0);
    std::string bias = name + ".bias";
    if (has_bias) {
      bias = layer.input(2);
      layer.mutable_input()->DeleteSubrange(2, 1);
    } else {
      add_channel_tensor(graph, bias, channels, 0);
    }
    layer.set_output(0, name + ".input");
    add_channel_tensor(graph, name + ".scale", channels, 1);
    add_channel_tensor(graph, name + ".mean", channels, 0);
    add_channel_tensor(graph, name + ".variance", channels, 1 - epsilon);
    onnx::NodeProto& norm = *graph.add_node();
    norm.set_op_type("BatchNormalization");
    norm.set_name(name);
    for (const std::string& input : {name + ".input", name + ".scale", bias, name + ".mean", name + ".variance"})
      norm.add_input(input);
    norm.add_output(output);
    onnx::AttributeProto& attribute = *norm.add_attribute();
    attribute.set_name("epsilon");
    attribute.set_type(onnx::AttributeProto::FLOAT);
    attribute.set_f(static_cast<float>(epsilon));
  }
  Problems problems;
  for (const std::string& pattern : options.after)
    if (!matched.contains(pattern)) {
      const std::string near = nearest(pattern, layers);
      problems.add("bn_after: no convolution or Gemm is called '" + pattern + "'" +
                   (near.empty() ? "" : "; did you mean '" + near + "'?"));
    }
  problems.throw_if_any();
  if (inserted == 0)
    throw Error("model '" + model.name() +
                "': nothing in the file tells that a convolution took in a batch norm at export; name those that did "
                "with bn_after");
  return model;
}

}  // namespace halfstep
