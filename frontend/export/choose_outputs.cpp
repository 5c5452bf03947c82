#include "frontend/export/choose_outputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "frontend/export/onnx_builder.h"
#include "frontend/import/import_model.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/validate.h"

namespace halfstep {
namespace {

using onnx::GraphProto;
using onnx::NodeProto;
using onnx::ValueInfoProto;

// What a node reads, its branches and bodies too, where some names may be their own.
void add_reads(const NodeProto& node, std::set<std::string>& names) {
  names.insert(node.input().begin(), node.input().end());
  for (const auto& attribute : node.attribute()) {
    const auto add = [&](const GraphProto& graph) {
      for (const NodeProto& inner : graph.node()) add_reads(inner, names);
      for (const ValueInfoProto& output : graph.output()) names.insert(output.name());
    };
    if (attribute.has_g()) add(attribute.g());
    for (const GraphProto& graph : attribute.graphs()) add(graph);
  }
}

template <typename Entries, typename Unwanted>
void remove_if(Entries& entries, const Unwanted& unwanted) {
  const auto end = std::remove_if(entries.begin(), entries.end(), unwanted);
  entries.DeleteSubrange(static_cast<int>(end - entries.begin()), static_cast<int>(entries.end() - end));
}

void expect_values(const GraphProto& graph, const std::vector<std::string>& names) {
  std::vector<std::string> known;
  for (const NodeProto& node : graph.node())
    for (const std::string& result : node.output())
      if (!result.empty()) known.push_back(result);
  std::vector<std::string> outputs;
  for (const ValueInfoProto& output : graph.output()) outputs.push_back(output.name());
  known.insert(known.end(), outputs.begin(), outputs.end());
  Problems problems;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) problems.add(fmt::format("outputs: '{}' is named twice", name));
    if (std::ranges::find(known, name) != known.end()) continue;
    const std::string near = nearest(name, known);
    problems.add(fmt::format("outputs: no node of the model makes a value '{}'{}; its outputs are {}", name,
                             near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(outputs, ", ")));
  }
  problems.throw_if_any();
}

// Of values that the file does not say: by an import of the model with them as its outputs.
std::map<std::string, ValueInfoProto> imported_types(const OnnxModel& model, const std::vector<std::string>& names,
                                                     const ImportOptions& import) {
  OnnxModel asked = model;
  GraphProto& graph = *asked.edit().mutable_graph();
  graph.clear_output();
  for (const std::string& name : names) graph.add_output()->set_name(name);
  ImportOptions options = import;
  options.weights = InitialWeights::none;
  std::map<std::string, ValueInfoProto> types;
  const ImportedModel imported = import_model(asked, options);
  for (const NamedValue& output : imported.graph.outputs()) {
    const TensorType type = imported.graph.type(output.value);
    ValueInfoProto& message = types[output.name.text] = value_message(output.name.text, type);
    for (auto& dim : *message.mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim()) dim.Clear();
  }
  return types;
}

bool says_type(const ValueInfoProto& value) {
  return value.type().has_tensor_type() && value.type().tensor_type().elem_type() != onnx::TensorProto::UNDEFINED;
}

std::vector<ValueInfoProto> messages_of(const OnnxModel& model, const std::vector<std::string>& names,
                                        const ImportOptions& import) {
  std::map<std::string, ValueInfoProto> said;
  const GraphProto& graph = model.proto().graph();
  for (const auto* values : {&graph.value_info(), &graph.output()})
    for (const ValueInfoProto& value : *values)
      if (says_type(value)) said[value.name()] = value;
  std::vector<std::string> unsaid;
  for (const std::string& name : names)
    if (!said.contains(name)) unsaid.push_back(name);
  if (!unsaid.empty()) said.merge(imported_types(model, unsaid, import));
  std::vector<ValueInfoProto> messages;
  for (const std::string& name : names) messages.push_back(said.at(name));
  return messages;
}

}  // namespace

CutModel choose_outputs(OnnxModel& model, const std::vector<std::string>& names, const ImportOptions& import) {
  expect_values(model.proto().graph(), names);
  const std::vector<ValueInfoProto> outputs = messages_of(model, names, import);
  CutModel cut;
  onnx::ModelProto& edited = model.edit();
  GraphProto& graph = *edited.mutable_graph();
  std::set<std::string> needed(names.begin(), names.end()), read_before;
  std::vector<char> kept(static_cast<size_t>(graph.node_size()));
  const std::vector<int> order = order_nodes(graph.node()).order;  // files need not have one
  for (auto at = order.rbegin(); at != order.rend(); ++at) {
    const int i = *at;
    const NodeProto& node = graph.node(i);
    add_reads(node, read_before);
    if (std::ranges::none_of(node.output(), [&](const std::string& result) { return needed.contains(result); }))
      continue;
    kept[static_cast<size_t>(i)] = 1;
    add_reads(node, needed);
  }
  int at = 0;
  cut.nodes = std::ranges::count(kept, 0);
  remove_if(*graph.mutable_node(), [&](const NodeProto&) { return !kept[static_cast<size_t>(at++)]; });
  // What nobody read before is not this cut's to take.
  const auto is_removed = [&](const auto& value) {
    return read_before.contains(value.name()) && !needed.contains(value.name());
  };
  for (const ValueInfoProto& input : graph.input())
    if (is_removed(input)) cut.inputs.push_back(input.name());
  for (const ValueInfoProto& output : graph.output())
    if (std::ranges::find(names, output.name()) == names.end()) cut.outputs.push_back(output.name());
  remove_if(*graph.mutable_input(), is_removed);
  remove_if(*graph.mutable_initializer(), is_removed);
  remove_if(*graph.mutable_sparse_initializer(),
            [&](const onnx::SparseTensorProto& tensor) { return is_removed(tensor.values()); });
  std::set<std::string> made;
  for (const NodeProto& node : graph.node()) made.insert(node.output().begin(), node.output().end());
  remove_if(*graph.mutable_value_info(), [&](const ValueInfoProto& value) {
    return !made.contains(value.name()) || std::ranges::find(names, value.name()) != names.end();
  });
  remove_if(*graph.mutable_quantization_annotation(), [&](const onnx::TensorAnnotation& a) {
    return !made.contains(a.tensor_name()) && !needed.contains(a.tensor_name());
  });
  graph.clear_output();
  for (const ValueInfoProto& output : outputs) *graph.add_output() = output;
  edited.clear_training_info();
  return cut;
}

}  // namespace halfstep
