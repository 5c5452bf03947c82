#include "frontend/repairs/constant_weights.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace halfstep {
namespace {

bool is_float(const onnx::TensorProto& tensor) {
  return tensor.data_type() == onnx::TensorProto::FLOAT || tensor.data_type() == onnx::TensorProto::FLOAT16 ||
         tensor.data_type() == onnx::TensorProto::BFLOAT16;
}

// The value of a Constant of several numbers; nullptr: there is none.
onnx::TensorProto* value_of(onnx::NodeProto& node) {
  if (node.op_type() != "Constant" || node.output_size() != 1 || node.attribute_size() != 1) return nullptr;
  onnx::AttributeProto& attribute = *node.mutable_attribute(0);
  if (attribute.name() != "value" || !attribute.has_t() || !is_float(attribute.t())) return nullptr;
  return std::ranges::any_of(attribute.t().dims(), [](int64_t size) { return size > 1; }) ? attribute.mutable_t()
                                                                                          : nullptr;
}

bool is_vector(const onnx::TensorProto& tensor) {
  return std::ranges::count_if(tensor.dims(), [](int64_t size) { return size != 1; }) == 1;
}

bool is_product(const std::string& op) {
  return op == "Conv" || op == "ConvTranspose" || op == "MatMul" || op == "Gemm" || op == "Einsum";
}

bool moves(const std::string& op) {
  return op == "Identity" || op == "Cast" || op == "Reshape" || op == "Transpose" || op == "Unsqueeze" ||
         op == "Squeeze" || op == "Flatten";
}

// Operands that are weights where they are constant, from the first to the last.
struct WeightOperands {
  int first, last;
};
std::optional<WeightOperands> weight_operands(const std::string& op) {
  static const std::map<std::string, WeightOperands> kOperators{{"Conv", {1, 2}},
                                                                {"ConvTranspose", {1, 2}},
                                                                {"MatMul", {0, 1}},
                                                                {"Gemm", {0, 2}},
                                                                {"BatchNormalization", {1, 4}},
                                                                {"InstanceNormalization", {1, 2}},
                                                                {"LSTM", {1, 7}},
                                                                {"LayerNormalization", {1, 2}},
                                                                {"GroupNormalization", {1, 2}},
                                                                {"GRU", {1, 3}},
                                                                {"RMSNormalization", {1, 1}},
                                                                {"Einsum", {0, 63}},
                                                                {"RNN", {1, 3}},
                                                                {"PRelu", {1, 1}},
                                                                {"Gather", {0, 0}}};
  const auto found = kOperators.find(op);
  return found == kOperators.end() ? std::nullopt : std::optional(found->second);
}

class Uses {
 public:
  explicit Uses(const onnx::GraphProto& graph) {
    std::set<std::string> initializers;
    for (const onnx::TensorProto& tensor : graph.initializer()) initializers.insert(tensor.name());
    for (const onnx::ValueInfoProto& input : graph.input())
      if (!initializers.contains(input.name())) data_.insert(input.name());
    for (const onnx::NodeProto& node : graph.node()) {
      for (const std::string& output : node.output()) makers_[output] = &node;
      bool depends = false;
      for (const std::string& input : node.input()) {
        readers_[input].push_back(&node);
        depends |= data_.contains(input);
      }
      if (depends && node.op_type() != "Shape") data_.insert(node.output().begin(), node.output().end());
    }
  }

  bool is_weight(const std::string& value, const onnx::TensorProto& tensor, int depth = 0) const {
    constexpr int kDeepest = 8;
    const auto readers = readers_.find(value);
    if (readers == readers_.end() || depth > kDeepest) return false;
    return std::ranges::any_of(readers->second, [&](const onnx::NodeProto* node) {
      const std::string& op = node->op_type();
      if (moves(op) && node->input(0) == value && node->output_size() > 0)
        return is_weight(node->output(0), tensor, depth + 1);
      if ((op == "Add" || op == "Mul") && is_vector(tensor)) return shifts(*node, value) || scales(*node, value);
      const std::optional<WeightOperands> operands = weight_operands(op);
      if (!operands ||
          (op == "Gather" && (tensor.dims_size() != 2 || node->input_size() < 2 || !data_.contains(node->input(1)))))
        return false;
      const bool of_data = std::ranges::any_of(node->input(), [&](const std::string& v) { return data_.contains(v); });
      for (int i = operands->first; i <= operands->last && i < node->input_size(); ++i)
        if (node->input(i) == value && of_data) return true;
      return false;
    });
  }

 private:
  const onnx::NodeProto* maker(std::string value) const {
    constexpr int kDeepest = 8;
    for (int depth = 0; depth < kDeepest; ++depth) {
      const auto found = makers_.find(value);
      if (found == makers_.end()) return nullptr;
      if (!moves(found->second->op_type()) || found->second->input_size() == 0) return found->second;
      value = found->second->input(0);
    }
    return nullptr;
  }

  static const std::string& other(const onnx::NodeProto& node, const std::string& value) {
    return node.input(node.input(0) == value && node.input_size() > 1 ? 1 : 0);
  }

  // x W + value, or the shift of a norm: x scale + value.
  bool shifts(const onnx::NodeProto& node, const std::string& value) const {
    if (node.op_type() != "Add" || !data_.contains(other(node, value))) return false;
    const onnx::NodeProto* made = maker(other(node, value));
    if (!made) return false;
    return is_product(made->op_type()) || (made->op_type() == "Mul" && ends_norm(*made));
  }

  // (x - mean) / deviation * value, if something is added to it.
  bool scales(const onnx::NodeProto& node, const std::string& value) const {
    if (node.op_type() != "Mul" || node.output_size() == 0 || !data_.contains(other(node, value))) return false;
    const auto readers = readers_.find(node.output(0));
    return ends_norm(node) && readers != readers_.end() &&
           std::ranges::any_of(readers->second, [](const onnx::NodeProto* n) { return n->op_type() == "Add"; });
  }

  // Whether the product is a scaled quotient by a deviation.
  bool ends_norm(const onnx::NodeProto& product) const {
    for (const std::string& operand : product.input())
      if (const onnx::NodeProto* made = maker(operand))
        for (const std::string& part : made->input())
          if (const onnx::NodeProto* root =
                  made->op_type() == "Div" || made->op_type() == "Mul" ? maker(part) : nullptr)
            if (root->op_type() == "Sqrt" || root->op_type() == "Reciprocal") return true;
    return false;
  }

  std::set<std::string> data_;  // what depends on inputs
  std::map<std::string, const onnx::NodeProto*> makers_;
  std::map<std::string, std::vector<const onnx::NodeProto*>> readers_;
};

}  // namespace

void store_constant_weights(onnx::ModelProto& model) {
  if (model.producer_name() == "pytorch") return;
  onnx::GraphProto& graph = *model.mutable_graph();
  auto& nodes = *graph.mutable_node();
  if (std::ranges::none_of(nodes, [](onnx::NodeProto& node) { return value_of(node) != nullptr; })) return;
  std::set<std::string> names;
  for (const onnx::TensorProto& tensor : graph.initializer()) names.insert(tensor.name());
  std::vector<char> stored(static_cast<size_t>(nodes.size()), 0);
  {
    const Uses uses(graph);
    for (int i = 0; i < nodes.size(); ++i)
      if (const onnx::TensorProto* value = value_of(nodes[i]))
        stored[static_cast<size_t>(i)] =
            !names.contains(nodes[i].output(0)) && uses.is_weight(nodes[i].output(0), *value);
  }
  google::protobuf::RepeatedPtrField<onnx::NodeProto> rest;
  for (int i = 0; i < nodes.size(); ++i) {
    if (!stored[static_cast<size_t>(i)]) {
      rest.Add()->Swap(&nodes[i]);
      continue;
    }
    onnx::TensorProto& tensor = *graph.add_initializer();
    tensor.Swap(value_of(nodes[i]));
    tensor.set_name(nodes[i].output(0));
  }
  nodes.Swap(&rest);
}

}  // namespace halfstep
