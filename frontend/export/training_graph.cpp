#include "frontend/export/training_graph.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "frontend/export/operator_rows.h"
#include "frontend/export/write_model.h"
#include "ir/op.h"

namespace halfstep {
namespace {

constexpr std::string_view kNext = "_out";

bool is_input(const Node& node) { return node.op->name == "input"; }
bool is_state(const Node& node) { return is_leaf(*node.op) && !is_input(node); }

// The names that users see: those of the model as they are, ours beside them, "step.learning_rate",
// "momentum/fc1.weight".
class OuterNames {
 public:
  // Error where two of the model's are the same.
  explicit OuterNames(std::initializer_list<const Graph*> graphs) {
    for (const Graph* graph : graphs) take_leaves(*graph, Turn::of_model);
    for (const Graph* graph : graphs) take_outputs(*graph, Turn::of_model);
    problems_.throw_if_any();
    for (const Graph* graph : graphs) take_leaves(*graph, Turn::ours);
    for (const Graph* graph : graphs) take_outputs(*graph, Turn::ours);
    for (const Graph* graph : graphs)
      for (const StateUpdate& u : graph->updates()) {
        const Name state = leaf_name(graph->node(u.state));
        next_.emplace(state, free_name(leaves_.at(state) + std::string(kNext)));
      }
  }

  const std::string& leaf(const Node& node) const { return leaves_.at(leaf_name(node)); }
  const std::string& next(const Node& state) const { return next_.at(leaf_name(state)); }
  const std::string& output(const Name& name) const { return outputs_.at(name); }
  const std::set<std::string>& taken() const { return taken_; }

 private:
  enum class Turn : uint8_t { of_model, ours };

  void take_leaves(const Graph& graph, Turn turn) {
    for (const Node& node : graph.nodes())
      if (is_leaf(*node.op)) take(leaf_name(node), turn, is_input(node) ? "input" : "state", leaves_);
  }
  void take_outputs(const Graph& graph, Turn turn) {
    for (const NamedValue& output : graph.outputs()) take(output.name, turn, "output", outputs_);
  }
  void take(const Name& name, Turn turn, const std::string& what, std::map<Name, std::string>& names) {
    if (name.is(Role::model) != (turn == Turn::of_model) || names.contains(name)) return;
    if (turn == Turn::ours) {
      names.emplace(name, free_name((name.is(Role::step_input) ? "step." : "") + name.text));
      return;
    }
    names.emplace(name, name.text);
    if (!taken_.insert(name.text).second)
      problems_.add(what + " '" + name.text +
                    "' of the training graph has the name of another value: rename it in the model");
  }
  std::string free_name(std::string name) {
    while (!taken_.insert(name).second) name += '_';
    return name;
  }

  std::map<Name, std::string> leaves_, outputs_, next_;
  std::set<std::string> taken_;
  Problems problems_;
};

Tensor initial_value(const Node& state, const NamedTensors& initial) {
  const auto found = initial.find(leaf_name(state));
  if (found == initial.end()) return Tensor(state.results[0]);
  require(found->second.type == state.results[0], "an initial value has its state's type");
  return found->second;
}

void write_nodes(const Graph& graph, const OuterNames& names, OnnxBuilder& onnx, onnx::GraphProto& message) {
  std::vector<std::vector<OnnxValue>> values;  // by node
  const auto at = [&](Value v) { return values[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)]; };
  for (const Node& node : graph.nodes()) {
    if (is_leaf(*node.op)) {
      values.push_back({{names.leaf(node), node.results[0]}});
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
  for (const NamedValue& output : graph.outputs()) give_out(output.value, names.output(output.name));
  for (const StateUpdate& u : graph.updates()) give_out(u.value, names.next(graph.node(u.state)));
  onnx.finish();
}

// The data first, then what else a step is told; nothing of `but`.
void declare_inputs(const Graph& graph, const OuterNames& names, onnx::GraphProto& message,
                    const std::set<Name>& but = {}) {
  for (const Role role : {Role::model, Role::step_input})
    for (const Node& node : graph.nodes())
      if (is_input(node) && leaf_name(node).is(role) && !but.contains(leaf_name(node)))
        *message.add_input() = value_message(names.leaf(node), node.results[0]);
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
void initialise(const Node& state, const std::string& outer, const NamedTensors& initial,
                onnx::TrainingInfoProto& info) {
  const Tensor value = initial_value(state, initial);
  const std::string name = "initial/" + outer;
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
  set_binding(*info.add_initialization_binding(), outer, name);
}

}  // namespace

void export_training_graph(const Graph& step, const NamedTensors& initial, const std::filesystem::path& path,
                           const ExportOptions& options) {
  const OuterNames names{&step};
  onnx::ModelProto model = empty_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.set_name("training_step");
  OnnxBuilder onnx(graph, names.taken());
  declare_inputs(step, names, graph);
  std::set<NodeId> updated;
  for (const StateUpdate& u : step.updates()) updated.insert(u.state.node);
  for (NodeId id = 0; id < step.size(); ++id) {
    const Node& node = step.node(id);
    if (!is_state(node)) continue;
    if (updated.contains(id)) *graph.add_input() = value_message(names.leaf(node), node.results[0]);
    *graph.add_initializer() = tensor_message(names.leaf(node), initial_value(node, initial));
  }
  write_nodes(step, names, onnx, graph);
  add_metadata(model, options.metadata);
  write_model(model, path, options.largest_inline);
}

void export_training_info(const Graph& inference, const Graph& step, const NamedTensors& initial,
                          const std::filesystem::path& path, const ExportOptions& options) {
  const OuterNames names{&inference, &step};
  onnx::ModelProto model = empty_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.set_name("inference");
  OnnxBuilder onnx(graph, names.taken(), "i");
  declare_inputs(inference, names, graph);
  std::set<Name> declared;
  for (const Node& node : inference.nodes())
    if (is_input(node)) declared.insert(leaf_name(node));
  onnx::TrainingInfoProto& info = *model.add_training_info();
  onnx::GraphProto& algorithm = *info.mutable_algorithm();
  algorithm.set_name("training_step");
  info.mutable_initialization()->set_name("initialization");
  declare_inputs(step, names, algorithm, declared);
  std::set<Name> written;
  for (const Graph* each : {&inference, &step})
    for (const Node& node : each->nodes()) {
      if (!is_state(node) || !written.insert(leaf_name(node)).second) continue;
      const bool slot = leaf_name(node).is(Role::slot);
      *(slot ? algorithm : graph).add_initializer() = tensor_message(names.leaf(node), initial_value(node, initial));
      if (slot) initialise(node, names.leaf(node), initial, info);
    }
  write_nodes(inference, names, onnx, graph);
  OnnxBuilder algorithm_nodes(algorithm, names.taken());
  write_nodes(step, names, algorithm_nodes, algorithm);
  for (const StateUpdate& u : step.updates())
    set_binding(*info.add_update_binding(), names.leaf(step.node(u.state)), names.next(step.node(u.state)));
  add_metadata(model, options.metadata);
  write_model(model, path, options.largest_inline);
}

}  // namespace halfstep
