#include "frontend/export/restore_parameters.h"

#include <set>
#include <string>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "frontend/onnx/exporter_metadata.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/onnx/ties.h"
#include "frontend/repairs/merged_parameters.h"
#include "frontend/repairs/removed_biases.h"

namespace halfstep {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 27;  // of what is put back

class Restoration {
 public:
  explicit Restoration(OnnxModel& model)
      : place_("model '" + model.name() + "'"), graph_(*model.edit().mutable_graph()) {
    for (const onnx::TensorProto& tensor : graph_.initializer()) names_.insert(tensor.name());
    for (const onnx::ValueInfoProto& input : graph_.input()) names_.insert(input.name());
    for (const onnx::NodeProto& node : graph_.node()) names_.insert(node.output().begin(), node.output().end());
    constexpr int kInitializersAreNoInputs = 4;  // from this version of the format on
    if (model.proto().ir_version() < kInitializersAreNoInputs) model.edit().set_ir_version(kInitializersAreNoInputs);
  }

  void split(const SharedInitializer& shared) {
    for (size_t i = 1; i < shared.parameters.size(); ++i) {
      const MergedParameter& parameter = shared.parameters[i];
      onnx::TensorProto& tensor = add(parameter.name, type_of(*shared.tensor).element_count());
      tensor = *shared.tensor;
      tensor.set_name(parameter.name);
      for (const ParameterUse& use : parameter.uses)
        graph_.mutable_node(use.node)->set_input(use.operand, parameter.name);
    }
  }

  void put_back(const RemovedBias& bias) {
    onnx::NodeProto& node = *graph_.mutable_node(bias.node);
    std::string name = bias_name(node, bias.weight->name());
    for (int i = 2; names_.contains(name); ++i) name = node.name() + ".bias_" + std::to_string(i);
    onnx::TensorProto& tensor = add(name, bias.size);
    tensor.set_name(name);
    tensor.set_data_type(onnx::TensorProto::FLOAT);
    tensor.add_dims(bias.size);
    tensor.set_raw_data(std::string(static_cast<size_t>(bias.size) * sizeof(float), '\0'));
    node.add_input(name);
  }

 private:
  onnx::TensorProto& add(const std::string& name, int64_t elements) {
    elements_ = checked_add(elements_, elements, "restored parameters");
    if (elements_ > kMostElements)
      throw Error(place_ + ": its restored parameters would have more than " + std::to_string(kMostElements) +
                  " elements");
    if (!names_.insert(name).second)
      throw Error(place_ + ": the name '" + name + "' is taken, rename that initializer");
    return *graph_.add_initializer();
  }

  static std::string bias_name(const onnx::NodeProto& node, const std::string& weight) {
    constexpr std::string_view kWeight = "weight";
    if (weight.ends_with(kWeight)) return weight.substr(0, weight.size() - kWeight.size()) + "bias";
    const std::string module = module_of(node);
    return (module.empty() ? node.name() : module) + ".bias";
  }

  std::string place_;
  onnx::GraphProto& graph_;
  std::set<std::string> names_;
  int64_t elements_ = 0;
};

}  // namespace

OnnxModel restore_parameters(OnnxModel model) {
  const onnx::ModelProto& proto = model.edit();
  const TensorReader reader = model.reader();
  const std::vector<SharedInitializer> merged =
      find_merged_parameters(proto.graph(), reader, find_ties(proto.graph(), reader));
  const std::vector<RemovedBias> removed = find_removed_biases(proto);
  if (merged.empty() && removed.empty())
    throw Error("model '" + model.name() +
                "': no parameters were merged or removed at export, there are none to restore");
  Restoration restoration(model);
  for (const SharedInitializer& shared : merged) restoration.split(shared);
  for (const RemovedBias& bias : removed) restoration.put_back(bias);
  return model;
}

}  // namespace halfstep
