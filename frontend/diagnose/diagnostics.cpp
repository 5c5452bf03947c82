#include "frontend/diagnose/diagnostics.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <unordered_set>

#include "base/error.h"
#include "base/printable.h"
#include "frontend/import/import_model.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/onnx/ties.h"
#include "frontend/repairs/folded_batch_norm.h"
#include "frontend/repairs/merged_parameters.h"
#include "frontend/repairs/removed_biases.h"
#include "frontend/repairs/scalar_weights.h"
#include "ir/op.h"

namespace halfstep {
namespace {

// "'a', 'b', 'c' and 2 more".
std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kMostNamed = 3;
  std::string list;
  for (size_t i = 0; i < std::min(names.size(), kMostNamed); ++i) list += (i ? ", '" : "'") + names[i] + "'";
  if (names.size() > kMostNamed) list += " and " + std::to_string(names.size() - kMostNamed) + " more";
  return list;
}

std::string counted(size_t n, const std::string& what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

std::string exported_type(const onnx::ValueInfoProto& input) {
  const auto& type = input.type().tensor_type();
  const std::optional<DType> dtype = element_type(type.elem_type());
  std::string text = (dtype ? std::string(name(*dtype)) : element_type_name(type.elem_type())) + "[";
  for (int i = 0; i < type.shape().dim_size(); ++i) {
    const auto& dim = type.shape().dim(i);
    text += (i ? "," : "") + (dim.has_dim_value()       ? std::to_string(dim.dim_value())
                              : dim.dim_param().empty() ? "?"
                                                        : dim.dim_param());
  }
  return text + "]";
}

bool is_dropout(const onnx::NodeProto& node) {
  return node.op_type() == "Dropout" || node.op_type() == "Bernoulli" || node.op_type().starts_with("Random");
}

class Inspection {
 public:
  explicit Inspection(const OnnxModel& file) : model_(file.proto()) {
    const onnx::ModelProto& model = model_;
    const std::string& version = model.producer_version();
    result_.producer = printable(model.producer_name() + (version.empty() ? "" : " " + version));
    for (const auto& opset : model.opset_import())
      if (canonical_domain(opset.domain()).empty()) result_.opset = opset.version();
    std::unordered_set<std::string_view> initializers;
    for (const onnx::TensorProto& tensor : model.graph().initializer()) initializers.insert(tensor.name());
    for (const onnx::ValueInfoProto& input : model.graph().input())
      if (!initializers.contains(input.name())) result_.inputs[input.name()] = exported_type(input);
    for (const onnx::NodeProto& node : model.graph().node()) {
      ++result_.operators[operator_name(node)];
      ++result_.nodes;
    }
    look_at_batch_norms();
    look_at_batch(initializers);
    look_at_dropout();
    const TensorReader reader = file.reader();
    const std::map<std::string, Tie> ties = find_ties(model.graph(), reader);
    look_at_merged_parameters(find_merged_parameters(model.graph(), reader, ties));
    look_at_removed_biases();
    look_at_constants(find_scalar_weights(model.graph(), reader));
    look_at_straight_through();
    for (const auto& [name, tie] : ties)
      add("tied weights",
          "'" + name + "' repeats '" + tie.to + (tie.orientation == Tie::transposed ? "' transposed" : "'") +
              ": one parameter, written back to both",
          "");
  }

  // Findings that only the imported graph tells.
  void look_at_weights(const Graph& graph) {
    std::set<NodeId> updated;
    for (const StateUpdate& update : graph.updates()) updated.insert(update.state.node);
    const auto users = graph.users();
    std::vector<std::string> renamed, shared;
    for (NodeId id = 0; id < graph.size(); ++id) {
      const Node& node = graph.node(id);
      const bool parameter = node.op->name == "parameter";
      if (!parameter && node.op->name != "state") continue;
      WeightCount& count = parameter ? result_.trainable : updated.contains(id) ? result_.statistics : result_.frozen;
      ++count.tensors;
      count.elements += node.results[0].element_count();
      if (!parameter) continue;
      const std::string& leaf = node.attributes.text("name");
      if (is_exporters_name(leaf)) renamed.push_back(leaf);
      std::set<std::string_view> readers;
      for (NodeId user : users[static_cast<size_t>(id)]) readers.insert(*graph.node(user).origin.name);
      if (readers.size() > 1 && !merged_.contains(leaf))
        shared.push_back(leaf + "' (" + counted(readers.size(), "node") + ")");
    }
    if (!renamed.empty())
      add("renamed weights",
          counted(renamed.size(), "parameter") + " bear names of the exporter, not of the model: " + listed(renamed),
          "to keep the names, export with optimize=False (default exporter) or do_constant_folding=False "
          "(TorchScript)");
    if (!shared.empty()) {
      for (std::string& name : shared) name.pop_back();
      std::string list;
      for (size_t i = 0; i < std::min<size_t>(shared.size(), 3); ++i) list += (i ? ", '" : "'") + shared[i] + ")";
      if (shared.size() > 3) list += " and " + std::to_string(shared.size() - 3) + " more";
      add("shared weights",
          counted(shared.size(), "parameter") + " read by several nodes: " + list + "; each is trained as one weight",
          "");
    }
  }

  Diagnostics& result() { return result_; }

 private:
  void add(const std::string& kind, const std::string& text, const std::string& remedy) {
    result_.findings.push_back({kind, text, remedy});
  }

  void look_at_batch_norms() {
    std::vector<std::string> names;
    for (int i = 0; i < model_.graph().node_size(); ++i)
      if (took_in_batch_norm(model_.graph().node(i))) names.push_back(node_name(model_.graph().node(i), i));
    if (!names.empty() && !result_.operators.contains("BatchNormalization"))
      add("folded batch norms",
          counted(names.size(), "layer") + " took in a batch norm at export and train without it: " + listed(names),
          "export with optimize=False or TrainingMode.TRAINING, or put batch norms back with --bn-insert");
  }

  void look_at_merged_parameters(const std::vector<SharedInitializer>& merged) {
    std::vector<std::string> names;
    size_t parameters = 0;
    for (const SharedInitializer& shared : merged) {
      names.push_back(shared.tensor->name());
      parameters += shared.parameters.size();
    }
    merged_.insert(names.begin(), names.end());
    if (!names.empty())
      add("merged weights",
          counted(parameters, "parameter") + " of equal values became " + counted(names.size(), "initializer") +
              " at export and train as that many: " + listed(names),
          kRestore);
  }

  void look_at_removed_biases() {
    std::vector<std::string> names;
    for (const RemovedBias& bias : find_removed_biases(model_))
      names.push_back(node_name(model_.graph().node(bias.node), bias.node));
    if (!names.empty())
      add("removed biases", counted(names.size(), "node") + " lost a bias of zeros at export: " + listed(names),
          kRestore);
  }

  // x + (y - x) with a y of steps: the difference was detached, which no file holds.
  void look_at_straight_through() {
    std::unordered_map<std::string_view, const onnx::NodeProto*> makers;
    std::vector<std::string> names;
    for (int i = 0; i < model_.graph().node_size(); ++i) {
      const onnx::NodeProto& node = model_.graph().node(i);
      for (const std::string& result : node.output()) makers[result] = &node;
      if (node.op_type() != "Add" || node.input_size() != 2) continue;
      for (int operand = 0; operand < 2; ++operand) {
        const auto found = makers.find(node.input(operand));
        if (found == makers.end()) continue;
        const onnx::NodeProto& difference = *found->second;
        if (difference.op_type() == "Sub" && difference.input_size() == 2 &&
            difference.input(1) == node.input(1 - operand) && comes_of_steps(makers, difference.input(0)))
          names.push_back(node_name(node, i));
      }
    }
    if (!names.empty())
      add("straight through",
          counted(names.size(), "node") +
              " add what was subtracted just before, so that no gradient passes: " + listed(names),
          "a straight-through estimator's detach() is not in the file; nothing before these nodes learns through them");
  }

  // Whether one of the last nodes that `value` is computed by is a function of derivative zero.
  static bool comes_of_steps(const std::unordered_map<std::string_view, const onnx::NodeProto*>& makers,
                             std::string_view value) {
    static const std::set<std::string> kSteps{"Round",       "Floor",  "Ceil",           "Sign",    "ArgMax",
                                              "ArgMin",      "OneHot", "GreaterOrEqual", "Greater", "Less",
                                              "LessOrEqual", "Equal",  "QuantizeLinear"};
    constexpr size_t kFurthest = 32;
    std::vector<std::string_view> values{value};
    for (size_t i = 0; i < values.size() && i < kFurthest; ++i) {
      const auto found = makers.find(values[i]);
      if (found == makers.end()) continue;
      if (kSteps.contains(found->second->op_type())) return true;
      for (const std::string& input : found->second->input())
        if (values.size() < kFurthest) values.push_back(input);
    }
    return false;
  }

  // Weights that could be trained and are not.
  void look_at_constants(const ScalarWeights& scalars) {
    const std::string train = "to train them, name them with --train";
    if (!scalars.numbers.empty())
      add("numbers",
          "scalars that scale or shift activations and are taken for numbers of a formula: " + listed(scalars.numbers),
          train);
    if (!scalars.others.empty())
      add("numbers",
          "scalars that do not scale or shift an activation alone and stay as they are: " + listed(scalars.others),
          train);
    if (model_.producer_name() == "pytorch") return;
    std::vector<std::string> names;
    for (const onnx::NodeProto& node : model_.graph().node())
      if (node.op_type() == "Constant" && node.output_size() == 1 && node.attribute_size() == 1 &&
          node.attribute(0).has_t() && !node.attribute(0).t().dims().empty())
        if (const TensorType type = type_of(node.attribute(0).t()); is_floating(type.dtype) && type.element_count() > 1)
          names.push_back(node.output(0));
    if (!names.empty())
      add("constants",
          counted(names.size(), "Constant node") +
              " that no operator reads as a weight stay as they are: " + listed(names),
          "to train them, store them as initializers");
  }

  void look_at_batch(const std::unordered_set<std::string_view>& initializers) {
    for (const onnx::ValueInfoProto& input : model_.graph().input()) {
      const auto& shape = input.type().tensor_type().shape();
      if (initializers.contains(input.name()) || shape.dim_size() == 0 || !shape.dim(0).has_dim_value()) continue;
      add("baked-in sizes", "input '" + input.name() + "' was exported as " + exported_type(input),
          "other sizes are chosen with --batch or --shape, where they can be proven; dynamic_shapes at export always "
          "can");
    }
  }

  void look_at_dropout() {
    size_t nodes = 0;
    for (const onnx::NodeProto& node : model_.graph().node()) nodes += is_dropout(node);
    for (const onnx::FunctionProto& function : model_.functions())
      for (const onnx::NodeProto& node : function.node()) nodes += is_dropout(node);
    if (nodes == 0)
      add("missing dropout", "the file drops nothing: if the model has dropout, it was exported for inference",
          "call model.train() before the export (TorchScript: TrainingMode.TRAINING)");
  }

  static constexpr const char* kRestore = "export with optimize=False, or put each back with --restore-parameters";

  const onnx::ModelProto& model_;
  std::set<std::string> merged_;  // initializers
  Diagnostics result_;
};

}  // namespace

std::vector<StoredTensor> floating_initializers(const OnnxModel& model) {
  const std::map<std::string, Tie> ties = find_ties(model.proto().graph(), model.reader());
  std::vector<StoredTensor> result;
  for (const onnx::TensorProto& tensor : model.proto().graph().initializer()) {
    const std::optional<DType> type = element_type(tensor.data_type());
    if (!type || !is_floating(*type)) continue;
    const auto tie = ties.find(tensor.name());
    result.push_back({tensor.name(), type_of(tensor).shape, tie == ties.end() ? "" : tie->second.to});
  }
  return result;
}

Diagnostics check_model(const OnnxModel& model, const ImportOptions& options) {
  Inspection inspection(model);
  Diagnostics& result = inspection.result();
  try {
    result.imported = import_model(model, options);
    inspection.look_at_weights(result.imported.graph);
    result.remarks = result.imported.remarks;
  } catch (const Error& error) {
    result.problems = lines_of(error.what());
  }
  return result;
}

}  // namespace halfstep
