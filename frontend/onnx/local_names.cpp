#include "frontend/onnx/local_names.h"

#include <algorithm>
#include <functional>
#include <set>
#include <unordered_map>

namespace halfstep {
namespace {

using Nodes = google::protobuf::RepeatedPtrField<onnx::NodeProto>;

// Calls `visit(subgraph, place)` for each among the nodes' attributes; a place is "NODE/ATTRIBUTE/".
template <typename Visit>
void for_each_subgraph(Nodes& nodes, const std::string& prefix, const Visit& visit) {
  for (int i = 0; i < nodes.size(); ++i)
    for (onnx::AttributeProto& attribute : *nodes[i].mutable_attribute()) {
      if (!attribute.has_g() && attribute.graphs().empty()) continue;
      const std::string place = prefix + node_name(nodes[i], i) + "/" + attribute.name() + "/";
      if (attribute.has_g()) visit(*attribute.mutable_g(), place);
      for (int k = 0; k < attribute.graphs_size(); ++k)
        visit(*attribute.mutable_graphs(k), place + std::to_string(k) + "/");
    }
}

bool has_subgraphs(const Nodes& nodes) {
  return std::ranges::any_of(nodes, [](const onnx::NodeProto& node) {
    return std::ranges::any_of(node.attribute(),
                               [](const onnx::AttributeProto& a) { return a.has_g() || !a.graphs().empty(); });
  });
}

// Each name that a graph defines, once.
std::set<std::string> defined_names(const onnx::GraphProto& graph) {
  std::set<std::string> names;
  for (const onnx::ValueInfoProto& input : graph.input()) names.insert(input.name());
  for (const onnx::TensorProto& tensor : graph.initializer()) names.insert(tensor.name());
  for (const onnx::NodeProto& node : graph.node()) names.insert(node.output().begin(), node.output().end());
  names.erase("");
  return names;
}

using Renames = std::unordered_map<std::string, std::string>;

void rename(std::string& name, const Renames& renames) {
  if (const auto found = renames.find(name); found != renames.end()) name = found->second;
}

void rename_nodes(Nodes& nodes, const Renames& renames) {
  for (onnx::NodeProto& node : nodes) {
    for (std::string& input : *node.mutable_input()) rename(input, renames);
    for (std::string& output : *node.mutable_output()) rename(output, renames);
  }
}

void rename_graph(onnx::GraphProto& graph, const Renames& renames) {
  rename_nodes(*graph.mutable_node(), renames);
  for (onnx::TensorProto& tensor : *graph.mutable_initializer()) rename(*tensor.mutable_name(), renames);
  for (auto* list : {graph.mutable_input(), graph.mutable_output(), graph.mutable_value_info()})
    for (onnx::ValueInfoProto& value : *list) rename(*value.mutable_name(), renames);
}

class Separation {
 public:
  LocalNames run(OnnxModel& model) {
    const auto& functions = model.proto().functions();
    const auto holds_graphs = [](const onnx::FunctionProto& function) { return has_subgraphs(function.node()); };
    if (!has_subgraphs(model.proto().graph().node()) && std::ranges::none_of(functions, holds_graphs)) return {};
    count(model.proto().graph());
    for (const onnx::FunctionProto& function : model.proto().functions()) count_subgraphs(function.node());
    if (collides_) {
      onnx::ModelProto& edited = model.edit();
      separate_subgraphs(*edited.mutable_graph()->mutable_node(), {}, "");
      for (onnx::FunctionProto& function : *edited.mutable_functions())
        separate_subgraphs(*function.mutable_node(), {}, function.name() + "/");
    }
    return std::move(old_names_);
  }

 private:
  void count(const onnx::GraphProto& graph) {
    for (const std::string& name : defined_names(graph)) collides_ |= ++definitions_[name] > 1;
    count_subgraphs(graph.node());
  }
  void count_subgraphs(const Nodes& nodes) {
    for (const onnx::NodeProto& node : nodes)
      for (const onnx::AttributeProto& attribute : node.attribute()) {
        if (attribute.has_g()) count(attribute.g());
        for (const onnx::GraphProto& graph : attribute.graphs()) count(graph);
      }
  }

  // `seen`: how the graphs around renamed what the nodes may read.
  void separate_subgraphs(Nodes& nodes, const Renames& seen, const std::string& prefix) {
    for_each_subgraph(nodes, prefix,
                      [&](onnx::GraphProto& graph, const std::string& place) { separate(graph, seen, place); });
  }

  void separate(onnx::GraphProto& graph, Renames seen, const std::string& place) {
    for (const std::string& name : defined_names(graph)) {
      seen.erase(name);
      if (definitions_[name] < 2) continue;
      std::string unique = place + name;
      for (int i = 2; definitions_.contains(unique); ++i) unique = place + name + "_" + std::to_string(i);
      definitions_[unique] = 1;
      old_names_[unique] = name;
      seen[name] = unique;
    }
    rename_graph(graph, seen);
    separate_subgraphs(*graph.mutable_node(), seen, place);
  }

  std::unordered_map<std::string, int> definitions_;  // graphs that define the name
  LocalNames old_names_;
  bool collides_ = false;
};

void restore_subgraphs(Nodes& nodes, const Renames& renames) {
  for_each_subgraph(nodes, "", [&](onnx::GraphProto& graph, const std::string&) {
    rename_graph(graph, renames);
    restore_subgraphs(*graph.mutable_node(), renames);
  });
}

}  // namespace

LocalNames separate_local_names(OnnxModel& model) { return Separation().run(model); }

void restore_local_names(onnx::ModelProto& model, const LocalNames& names) {
  if (names.empty()) return;
  const Renames renames(names.begin(), names.end());
  restore_subgraphs(*model.mutable_graph()->mutable_node(), renames);
  for (onnx::FunctionProto& function : *model.mutable_functions()) restore_subgraphs(*function.mutable_node(), renames);
}

}  // namespace halfstep
