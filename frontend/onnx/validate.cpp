#include "frontend/onnx/validate.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <set>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace halfstep {
namespace {

using Names = std::set<std::string_view>;

bool has_subgraphs(const onnx::NodeProto& node) {
  return std::ranges::any_of(node.attribute(),
                             [](const onnx::AttributeProto& a) { return a.has_g() || !a.graphs().empty(); });
}

// Calls `visit` for every subgraph among the node's attributes.
void for_each_subgraph(const onnx::NodeProto& node, const std::function<void(const onnx::GraphProto&)>& visit) {
  for (const onnx::AttributeProto& attribute : node.attribute()) {
    if (attribute.has_g()) visit(attribute.g());
    for (const onnx::GraphProto& graph : attribute.graphs()) visit(graph);
  }
}

// Every name the node reads, also from inside its subgraphs, less what these define themselves.
void collect_reads(const onnx::NodeProto& node, Names& names) {
  names.insert(node.input().begin(), node.input().end());
  for_each_subgraph(node, [&](const onnx::GraphProto& graph) {
    Names inner;
    for (const onnx::NodeProto& n : graph.node()) collect_reads(n, inner);
    for (const onnx::ValueInfoProto& output : graph.output()) inner.insert(output.name());
    for (const onnx::NodeProto& n : graph.node())
      for (const std::string& output : n.output()) inner.erase(output);
    for (const onnx::TensorProto& tensor : graph.initializer()) inner.erase(tensor.name());
    for (const onnx::ValueInfoProto& input : graph.input()) inner.erase(input.name());
    names.merge(inner);
  });
}

// Calls `visit(name)` for each of them, for some more than once.
template <typename Visit>
void for_each_read(const onnx::NodeProto& node, const Visit& visit) {
  if (!has_subgraphs(node)) {
    for (const std::string& name : node.input()) visit(name);
    return;
  }
  Names names;
  collect_reads(node, names);
  for (std::string_view name : names) visit(name);
}

// The node that makes each value.
using Producers = std::unordered_map<std::string_view, int>;

Producers producers_of(const NodeList& nodes) {
  Producers producers;
  producers.reserve(static_cast<size_t>(nodes.size()));
  for (int i = 0; i < nodes.size(); ++i)
    for (const std::string& output : nodes[i].output())
      if (!output.empty()) producers[output] = i;
  return producers;
}

bool are_in_order(const NodeList& nodes, const Producers& producers) {
  for (int i = 0; i < nodes.size(); ++i) {
    bool after = true;
    for_each_read(nodes[i], [&](std::string_view name) {
      if (const auto found = producers.find(name); found != producers.end()) after &= found->second < i;
    });
    if (!after) return false;
  }
  return true;
}

// The names that a graph defines, and those it sees of the graphs around it.
struct Visible {
  const Visible* outer = nullptr;
  std::unordered_set<std::string_view> names = {};
  std::unordered_set<std::string_view> before = {};  // of `names`: where the node stands that holds the graph

  bool contains(std::string_view name) const {
    for (const Visible* scope = this; scope; scope = scope->outer)
      if (scope->names.contains(name)) return true;
    return false;
  }
  // Whether a graph around this one has a value of that name already: a later one may have it too.
  bool is_shadowed(std::string_view name) const {
    for (const Visible* scope = outer; scope; scope = scope->outer)
      if (scope->before.contains(name)) return true;
    return false;
  }
};

class Validator {
 public:
  explicit Validator(Problems& problems) : problems_(problems) {}

  void check_graph(const onnx::GraphProto& graph, const Visible* outer) {
    Visible visible{.outer = outer};
    visible.names.reserve(static_cast<size_t>(graph.node_size() + graph.initializer_size() + graph.input_size()));
    for (const onnx::ValueInfoProto& input : graph.input()) define(visible, input.name(), [] { return "an input"; });
    std::unordered_set<std::string_view> initialized;
    initialized.reserve(static_cast<size_t>(graph.initializer_size()));
    for (const onnx::TensorProto& tensor : graph.initializer()) {
      if (tensor.name().empty()) problems_.add("an initializer has no name");
      if (!initialized.insert(tensor.name()).second)
        problems_.add("value '" + tensor.name() + "' is defined twice: by two initializers");
      if (visible.is_shadowed(tensor.name()))
        problems_.add("value '" + tensor.name() + "' is defined twice: again by an initializer of graph '" +
                      graph.name() + "'");
      visible.names.insert(tensor.name());  // an input of this name only declares it
    }
    for (const onnx::SparseTensorProto& tensor : graph.sparse_initializer())
      problems_.add("initializer '" + tensor.values().name() + "' is sparse; store it dense");
    check_nodes(graph.node(), visible);
    for (const onnx::ValueInfoProto& output : graph.output())
      if (!visible.contains(output.name()))
        problems_.add("output '" + output.name() + "' is nowhere defined: no node, input or initializer has this name");
  }

  void check_function(const onnx::FunctionProto& function, const NodeList& nodes) {
    Visible visible;
    visible.names.insert(function.input().begin(), function.input().end());
    check_nodes(nodes, visible);
    for (const std::string& output : function.output())
      if (!visible.contains(output))
        problems_.add("function '" + function.name() + "': output '" + output + "' is nowhere defined");
  }

 private:
  template <typename By>
  void define(Visible& visible, const std::string& name, const By& by) {
    if (!visible.names.insert(name).second || visible.is_shadowed(name))
      problems_.add("value '" + name + "' is defined twice: again by " + by());
  }

  // Adds what the nodes define to `visible`.
  void check_nodes(const NodeList& nodes, Visible& visible) {
    const bool any = std::ranges::any_of(nodes, has_subgraphs);  // only these ask what stood before
    if (any) visible.before = visible.names;
    for (int i = 0; i < nodes.size(); ++i)
      for (const std::string& output : nodes[i].output())
        if (!output.empty()) define(visible, output, [&] { return "node " + describe(nodes[i], i); });
    for (int i = 0; i < nodes.size(); ++i)
      for (const std::string& input : nodes[i].input())
        if (!input.empty() && !visible.contains(input))
          problems_.add("node " + describe(nodes[i], i) + ": operand '" + input +
                        "' is nowhere defined: no node, input or initializer has this name");
    const NodeOrder order = order_nodes(nodes);
    for (int i : order.order) {
      if (!any) break;
      for_each_subgraph(nodes[i], [&](const onnx::GraphProto& graph) { check_graph(graph, &visible); });
      visible.before.insert(nodes[i].output().begin(), nodes[i].output().end());
    }
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

// Of the nodes that still wait, those that do not only stand behind a cycle: whoever feeds none that waits goes first.
std::vector<int> on_cycles(const std::vector<std::vector<int>>& consumers, const std::vector<int>& waiting) {
  std::vector<std::vector<int>> producers(consumers.size());
  std::vector<int> feeds(consumers.size(), 0), behind;
  for (size_t i = 0; i < consumers.size(); ++i) {
    for (int consumer : consumers[i]) {
      producers[static_cast<size_t>(consumer)].push_back(static_cast<int>(i));
      feeds[i] += waiting[static_cast<size_t>(consumer)] > 0;
    }
    if (waiting[i] > 0 && feeds[i] == 0) behind.push_back(static_cast<int>(i));
  }
  std::vector<char> is_behind(consumers.size(), 0);
  while (!behind.empty()) {
    const auto node = static_cast<size_t>(behind.back());
    behind.pop_back();
    is_behind[node] = 1;
    for (int producer : producers[node])
      if (waiting[static_cast<size_t>(producer)] > 0 && --feeds[static_cast<size_t>(producer)] == 0)
        behind.push_back(producer);
  }
  std::vector<int> cyclic;
  for (size_t i = 0; i < consumers.size(); ++i)
    if (waiting[i] > 0 && !is_behind[i]) cyclic.push_back(static_cast<int>(i));
  return cyclic;
}

}  // namespace

namespace {

NodeOrder order_nodes(const NodeList& nodes, const Producers& producers) {
  std::vector<int> in_file(static_cast<size_t>(nodes.size()));
  std::iota(in_file.begin(), in_file.end(), 0);
  if (are_in_order(nodes, producers)) return {.order = std::move(in_file), .cyclic = {}};
  std::vector<std::vector<int>> consumers(in_file.size());
  std::vector<int> waiting(consumers.size(), 0);
  for (int i = 0; i < nodes.size(); ++i)
    for_each_read(nodes[i], [&](std::string_view name) {
      const auto found = producers.find(name);
      if (found == producers.end()) return;
      consumers[static_cast<size_t>(found->second)].push_back(i);
      ++waiting[static_cast<size_t>(i)];
    });
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
  if (result.order.size() < consumers.size()) result.cyclic = on_cycles(consumers, waiting);
  return result;
}

// Which nodes the outputs depend on, by index.
std::vector<char> needed_nodes(const onnx::GraphProto& graph, const Producers& producers) {
  std::vector<char> needed(static_cast<size_t>(graph.node_size()), 0);
  std::vector<int> open;
  const auto read = [&](std::string_view name) {
    const auto found = producers.find(name);
    if (found == producers.end() || needed[static_cast<size_t>(found->second)]) return;
    needed[static_cast<size_t>(found->second)] = 1;
    open.push_back(found->second);
  };
  for (const onnx::ValueInfoProto& output : graph.output()) read(output.name());
  while (!open.empty()) {
    const onnx::NodeProto& node = graph.node(open.back());
    open.pop_back();
    for_each_read(node, read);
    for (const onnx::AttributeProto& attribute : node.attribute()) {  // Gradient names what it differentiates
      read(attribute.s());
      for (const std::string& name : attribute.strings()) read(name);
    }
  }
  return needed;
}

}  // namespace

NodeOrder order_nodes(const NodeList& nodes) { return order_nodes(nodes, producers_of(nodes)); }

std::vector<int> needed_in_order(const onnx::GraphProto& graph) {
  const Producers producers = producers_of(graph.node());
  const std::vector<char> needed = needed_nodes(graph, producers);
  std::vector<int> order = order_nodes(graph.node(), producers).order;
  std::erase_if(order, [&](int node) { return !needed[static_cast<size_t>(node)]; });
  return order;
}

void validate_model(const onnx::ModelProto& model, Problems& problems) {
  check_opsets(model, problems);
  const onnx::GraphProto& graph = model.graph();
  if (graph.node().empty()) problems.add("the graph is empty: it has no nodes");
  if (graph.output().empty()) problems.add("the graph has no outputs");
  Validator validator(problems);
  validator.check_graph(graph, nullptr);
  for (const onnx::FunctionProto& function : model.functions()) validator.check_function(function, function.node());
}

void validate_body(const onnx::FunctionProto& function, const NodeList& nodes, Problems& problems) {
  Validator(problems).check_function(function, nodes);
}

}  // namespace halfstep
