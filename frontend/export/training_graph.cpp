#include "frontend/export/training_graph.h"

#include <algorithm>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/own_names.h"
#include "frontend/export/operator_rows.h"
#include "frontend/export/write_model.h"
#include "ir/op.h"

namespace halfstep {
namespace {

constexpr std::string_view kNext = "_out";

bool is_input(const Node& node) { return node.op->name == "input"; }
bool is_state(const Node& node) { return is_leaf(*node.op) && !is_input(node); }
const std::string& leaf_name(const Node& node) { return node.attributes.text("name"); }
std::string outer_name(const Node& leaf) { return std::string(unmarked(leaf_name(leaf))); }
std::string next_name(const Node& state) { return outer_name(state) + std::string(kNext); }
std::string output_name(const std::string& name) {
  return name.starts_with(kModelOutput) ? name.substr(kModelOutput.size()) : name;
}

// The names that users see. Error where two are the same.
class OuterNames {
 public:
  void take_leaves(const Graph& graph) {
    for (const Node& node : graph.nodes())
      if (is_leaf(*node.op)) take(outer_name(node), is_input(node) ? "input" : "state");
  }
  void take_outputs(const Graph& graph) {
    for (const NamedValue& output : graph.outputs()) take(output_name(output.name), "output");
    for (const StateUpdate& u : graph.updates()) take(next_name(graph.node(u.state)), "output");
  }
  void take(const std::string& name, const std::string& what) {
    if (!names_.insert(name).second)
      problems_.add(what + " '" + name +
                    "' of the training graph has the name of another value: rename it in the model");
  }
  const std::set<std::string>& get() const {
    problems_.throw_if_any();
    return names_;
  }

 private:
  std::set<std::string> names_;
  Problems problems_;
};

Tensor initial_value(const Node& state, const NamedTensors& initial) {
  const auto found = initial.find(leaf_name(state));
  if (found == initial.end()) return Tensor(state.results[0]);
  require(found->second.type == state.results[0], "an initial value has its state's type");
  return found->second;
}

void write_nodes(const Graph& graph, OnnxBuilder& onnx, onnx::GraphProto& message) {
  std::vector<std::vector<OnnxValue>> values;  // by node
  const auto at = [&](Value v) { return values[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)]; };
  for (const Node& node : graph.nodes()) {
    if (is_leaf(*node.op)) {
      values.push_back({{outer_name(node), node.results[0]}});
      continue;
    }
    std::vector<OnnxValue> operands;
    for (const Value operand : node.operands) operands.push_back(operand ? at(operand) : OnnxValue{});
    values.push_back(write_node(onnx, node, operands));
  }
  const auto give_out = [&](Value value, const std::string& name) {
    onnx.rename(at(value), name);
    *message.add_output() = value_message(name, graph.type(value));
  };
  for (const NamedValue& output : graph.outputs()) give_out(output.value, output_name(output.name));
  for (const StateUpdate& u : graph.updates()) give_out(u.value, next_name(graph.node(u.state)));
  onnx.finish();
}

// The data first, then what else a step is told; nothing of `but`.
void declare_inputs(const Graph& graph, onnx::GraphProto& message, const std::set<std::string>& but = {}) {
  for (const bool own : {false, true})
    for (const Node& node : graph.nodes())
      if (is_input(node) && is_own_name(leaf_name(node)) == own && !but.contains(leaf_name(node)))
        *message.add_input() = value_message(outer_name(node), node.results[0]);
}

onnx::ModelProto empty_model() {
  onnx::ModelProto model;
  model.set_ir_version(kTrainingGraphIrVersion);
  model.set_producer_name("halfstep");
  model.add_opset_import()->set_version(kTrainingGraphOpset);
  return model;
}

void set_binding(onnx::StringStringEntryProto& binding, const std::string& state, const std::string& value) {
  binding.set_key(state);
  binding.set_value(value);
}

// What a state holds before the first step, as nodes: zeros by their shape.
void initialise(const Node& state, const NamedTensors& initial, onnx::TrainingInfoProto& info) {
  const Tensor value = initial_value(state, initial);
  const std::string name = "initial/" + outer_name(state);
  onnx::GraphProto& graph = *info.mutable_initialization();
  onnx::NodeProto& node = *graph.add_node();
  node.set_op_type("Constant");
  node.add_output(name);
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name("value");
  attribute.set_type(onnx::AttributeProto::TENSOR);
  const bool zero = std::ranges::all_of(value.data, [](std::byte b) { return b == std::byte{0}; });
  if (zero && !value.type.shape.empty()) {
    Tensor shape(TensorType{DType::i64, {static_cast<int64_t>(value.type.shape.size())}});
    std::ranges::copy(value.type.shape, shape.as<int64_t>().begin());
    *graph.add_initializer() = tensor_message(name + "/shape", shape);
    node.set_op_type("ConstantOfShape");
    node.add_input(name + "/shape");
    *attribute.mutable_t() = tensor_message("", Tensor(TensorType{value.type.dtype, {1}}));
  } else {
    *attribute.mutable_t() = tensor_message("", value);
  }
  *graph.add_output() = value_message(name, value.type);
  set_binding(*info.add_initialization_binding(), outer_name(state), name);
}

}  // namespace

void export_training_graph(const Graph& step, const NamedTensors& initial, const std::filesystem::path& path,
                           const ExportOptions& options) {
  OuterNames names;
  names.take_leaves(step);
  names.take_outputs(step);
  onnx::ModelProto model = empty_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.set_name("training_step");
  OnnxBuilder onnx(graph, names.get());
  declare_inputs(step, graph);
  std::set<NodeId> updated;
  for (const StateUpdate& u : step.updates()) updated.insert(u.state.node);
  for (NodeId id = 0; id < step.size(); ++id) {
    const Node& node = step.node(id);
    if (!is_state(node)) continue;
    if (updated.contains(id)) *graph.add_input() = value_message(outer_name(node), node.results[0]);
    *graph.add_initializer() = tensor_message(outer_name(node), initial_value(node, initial));
  }
  write_nodes(step, onnx, graph);
  add_metadata(model, options.metadata);
  write_model(model, path, options.largest_inline);
}

void export_training_info(const Graph& inference, const Graph& step, const NamedTensors& initial,
                          const std::filesystem::path& path, const ExportOptions& options) {
  OuterNames names;
  names.take_leaves(step);
  names.take_outputs(inference);
  names.take_outputs(step);
  onnx::ModelProto model = empty_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.set_name("inference");
  OnnxBuilder onnx(graph, names.get(), "i");
  declare_inputs(inference, graph);
  std::set<std::string> declared;
  for (const Node& node : inference.nodes())
    if (is_input(node)) declared.insert(leaf_name(node));
  onnx::TrainingInfoProto& info = *model.add_training_info();
  onnx::GraphProto& algorithm = *info.mutable_algorithm();
  algorithm.set_name("training_step");
  info.mutable_initialization()->set_name("initialization");
  declare_inputs(step, algorithm, declared);
  std::set<std::string> written;
  for (const Graph* each : {&inference, &step})
    for (const Node& node : each->nodes()) {
      if (!is_state(node) || !written.insert(leaf_name(node)).second) continue;
      const bool slot = is_own_name(leaf_name(node));
      *(slot ? algorithm : graph).add_initializer() = tensor_message(outer_name(node), initial_value(node, initial));
      if (slot) initialise(node, initial, info);
    }
  write_nodes(inference, onnx, graph);
  OnnxBuilder algorithm_nodes(algorithm, names.get());
  write_nodes(step, algorithm_nodes, algorithm);
  for (const StateUpdate& u : step.updates())
    set_binding(*info.add_update_binding(), outer_name(step.node(u.state)), next_name(step.node(u.state)));
  add_metadata(model, options.metadata);
  write_model(model, path, options.largest_inline);
}

}  // namespace halfstep
