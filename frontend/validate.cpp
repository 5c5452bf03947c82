#include "frontend/validate.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <set>
#include <unordered_map>

namespace halfstep {
namespace {

using Names = std::set<std::string>;

// Calls `visit` for every subgraph among the node's attributes.
void for_each_subgraph(const onnx::NodeProto& node, const std::function<void(const onnx::GraphProto&)>& visit) {
  for (const onnx::AttributeProto& attribute : node.attribute()) {
    if (attribute.has_g()) visit(attribute.g());
    for (const onnx::GraphProto& graph : attribute.graphs()) visit(graph);
  }
}

// Every name the node reads, also from inside its subgraphs.
void collect_reads(const onnx::NodeProto& node, Names& names) {
  names.insert(node.input().begin(), node.input().end());
  for_each_subgraph(node, [&](const onnx::GraphProto& graph) {
    for (const onnx::NodeProto& inner : graph.node()) collect_reads(inner, names);
    for (const onnx::ValueInfoProto& output : graph.output()) names.insert(output.name());
  });
}

class Validator {
 public:
  explicit Validator(Problems& problems) : problems_(problems) {}

  void check_graph(const onnx::GraphProto& graph, Names visible) {
    for (const onnx::ValueInfoProto& input : graph.input()) define(visible, input.name(), "an input");
    Names initialized;
    for (const onnx::TensorProto& tensor : graph.initializer()) {
      if (tensor.name().empty()) problems_.add("an initializer has no name");
      if (!initialized.insert(tensor.name()).second)
        problems_.add("value '" + tensor.name() + "' is defined twice: by two initializers");
      visible.insert(tensor.name());  // an input of this name only declares it
    }
    for (const onnx::SparseTensorProto& tensor : graph.sparse_initializer())
      problems_.add("initializer '" + tensor.values().name() + "' is sparse; store it dense");
    check_nodes(graph.node(), visible);
    for (const onnx::ValueInfoProto& output : graph.output())
      if (!visible.contains(output.name()))
        problems_.add("output '" + output.name() + "' is nowhere defined: no node, input or initializer has this name");
  }

  void check_function(const onnx::FunctionProto& function) {
    Names visible(function.input().begin(), function.input().end());
    check_nodes(function.node(), visible);
    for (const std::string& output : function.output())
      if (!visible.contains(output))
        problems_.add("function '" + function.name() + "': output '" + output + "' is nowhere defined");
  }

 private:
  void define(Names& visible, const std::string& name, const std::string& by) {
    if (!visible.insert(name).second) problems_.add("value '" + name + "' is defined twice: again by " + by);
  }

  // Adds what the nodes define to `visible`.
  void check_nodes(const NodeList& nodes, Names& visible) {
    for (int i = 0; i < nodes.size(); ++i)
      for (const std::string& output : nodes[i].output())
        if (!output.empty()) define(visible, output, "node " + describe(nodes[i], i));
    for (int i = 0; i < nodes.size(); ++i) {
      for (const std::string& input : nodes[i].input())
        if (!input.empty() && !visible.contains(input))
          problems_.add("node " + describe(nodes[i], i) + ": operand '" + input +
                        "' is nowhere defined: no node, input or initializer has this name");
      for_each_subgraph(nodes[i], [&](const onnx::GraphProto& graph) { check_graph(graph, visible); });
    }
    const NodeOrder order = order_nodes(nodes);
    if (order.cyclic.empty()) return;
    std::string names;
    for (int i : order.cyclic) names += (names.empty() ? "" : ", ") + describe(nodes[i], i);
    problems_.add("nodes depend on each other in a cycle: " + names);
  }

  Problems& problems_;
};

void check_opsets(const onnx::ModelProto& model, Problems& problems) {
  const Opsets opsets = opsets_of(model.opset_import());
  const auto standard = opsets.find("");
  const auto& nodes = model.graph().node();
  const bool needed = opsets.empty() || std::any_of(nodes.begin(), nodes.end(), [](const onnx::NodeProto& node) {
                        return canonical_domain(node.domain()).empty();
                      });
  if (standard == opsets.end() && !needed) return;
  if (standard == opsets.end())
    problems.add("the model names no opset version; the file is truncated, or export it again");
  else if (standard->second < kOldestOpset || standard->second > kNewestOpset)
    problems.add("opset " + std::to_string(standard->second) + " is not supported: " + std::to_string(kOldestOpset) +
                 " to " + std::to_string(kNewestOpset) + " are; export the model again with one of them");
}

}  // namespace

NodeOrder order_nodes(const NodeList& nodes) {
  std::unordered_map<std::string, int> producer;
  for (int i = 0; i < nodes.size(); ++i)
    for (const std::string& output : nodes[i].output())
      if (!output.empty()) producer[output] = i;
  std::vector<std::vector<int>> consumers(static_cast<size_t>(nodes.size()));
  std::vector<int> waiting(consumers.size(), 0);
  for (int i = 0; i < nodes.size(); ++i) {
    Names reads;
    collect_reads(nodes[i], reads);
    for (const std::string& name : reads)
      if (const auto found = producer.find(name); found != producer.end()) {
        consumers[static_cast<size_t>(found->second)].push_back(i);
        ++waiting[static_cast<size_t>(i)];
      }
  }
  NodeOrder result;
  std::priority_queue<int, std::vector<int>, std::greater<>> ready;
  for (int i = 0; i < nodes.size(); ++i)
    if (waiting[static_cast<size_t>(i)] == 0) ready.push(i);
  while (!ready.empty()) {
    const int node = ready.top();
    ready.pop();
    result.order.push_back(node);
    for (int consumer : consumers[static_cast<size_t>(node)])
      if (--waiting[static_cast<size_t>(consumer)] == 0) ready.push(consumer);
  }
  // What waits is on a cycle or behind one; without consumers that wait, it is only behind.
  std::vector<char> waits(waiting.size());
  for (size_t i = 0; i < waits.size(); ++i) waits[i] = waiting[i] > 0;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = waits.size(); i-- > 0;) {
      if (!waits[i]) continue;
      bool feeds = false;
      for (int consumer : consumers[i]) feeds |= waits[static_cast<size_t>(consumer)] != 0;
      if (!feeds) waits[i] = 0, changed = true;
    }
  }
  for (int i = 0; i < nodes.size(); ++i)
    if (waits[static_cast<size_t>(i)]) result.cyclic.push_back(i);
  return result;
}

void validate_model(const onnx::ModelProto& model, Problems& problems) {
  check_opsets(model, problems);
  const onnx::GraphProto& graph = model.graph();
  if (graph.node().empty()) problems.add("the graph is empty: it has no nodes");
  if (graph.output().empty()) problems.add("the graph has no outputs");
  Validator validator(problems);
  validator.check_graph(graph, {});
  for (const onnx::FunctionProto& function : model.functions()) validator.check_function(function);
}

}  // namespace halfstep
