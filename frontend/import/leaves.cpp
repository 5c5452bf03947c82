#include "frontend/import/leaves.h"

#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "frontend/onnx/tensor_data.h"
#include "ir/builder.h"

namespace halfstep {

TensorType leaf_type(const onnx::TensorProto& tensor, const RepeatedLeaves& repeated) {
  TensorType type = type_of(tensor);
  if (const auto found = repeated.find(tensor.name()); found != repeated.end())
    for (size_t axis : found->second) type.shape[axis] = 1;
  return type;
}

void check_leaves(const Graph& graph, const RepeatedLeaves& repeated, const InputShapes& shapes) {
  std::unordered_map<std::string_view, int> leaves, parameters;
  for (const Node& node : graph.nodes()) {
    const bool parameter = node.op->name == "parameter";
    if (!parameter && node.op->name != "state") continue;
    ++leaves[node.attributes.text("name")];
    parameters[node.attributes.text("name")] += parameter;
  }
  std::set<std::string_view> mixed;
  for (const auto& [name, count] : parameters)
    if (count > 0 && count < leaves.at(name)) mixed.insert(name);
  Problems problems;
  for (std::string_view name : mixed)
    problems.add("initializer '" + std::string(name) +
                 "' is both a parameter and a running statistic, merged at export because " +
                 "their values were equal: put each back with --restore-parameters, or export with optimize=False");
  for (const auto& [name, axes] : repeated)
    if (leaves[name] > 1)
      problems.add("initializer '" + name + "' is read both as the exported copies of one value and whole; " +
                   describe_sizes(shapes) + ": use the exported sizes, or export with dynamic ones");
  problems.throw_if_any();
}

Graph without_unread_step_inputs(const Graph& graph) {
  std::vector<char> read(graph.nodes().size(), 0);
  for (const Node& node : graph.nodes())
    for (Value v : node.operands)
      if (v) read[static_cast<size_t>(v.node)] = 1;
  const auto unread = [&](NodeId id) {
    const Node& node = graph.node(id);
    return !read[static_cast<size_t>(id)] && node.op->name == "input" && leaf_name(node).is(Role::step_input);
  };
  bool any = false;
  for (NodeId id = 0; id < graph.size(); ++id) any |= unread(id);
  if (!any) return graph;
  NodeId next = 0;
  return rewrite(graph, [&](Builder&, const Node&, std::span<const Value>) {
    return unread(next++) ? std::vector<Value>{Value{}} : std::vector<Value>();
  });
}

}  // namespace halfstep
