#include "ir/verify.h"

#include <set>

#include "base/error.h"
#include "ir/op.h"

namespace halfstep {
namespace {

void fail(const Node& node, NodeId id, const std::string& what) {
  throw InternalError("node %" + std::to_string(id) + " " + std::string(node.op->name) + " '" + to_string(node.origin) +
                      "': " + what);
}

void verify_node(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  std::vector<const TensorType*> types;
  for (Value v : node.operands) {
    if (v && (v.node >= id || static_cast<size_t>(v.result) >= graph.node(v).results.size()))
      fail(node, id, "an operand does not stand before its use");
    types.push_back(v ? &graph.type(v) : nullptr);
  }
  for (const AttributeSpec& spec : node.op->attributes)
    if (const Attribute* a = node.attributes.find(spec.name); !a || a->index() != spec.default_value.index())
      fail(node, id, "attribute '" + std::string(spec.name) + "' is missing or of another kind");
  try {
    if (node.op->type({node.attributes, types}) != node.results)
      fail(node, id, "a result type differs from the type rule");
  } catch (const Error& e) {
    fail(node, id, e.what());
  }
}

}  // namespace

void verify(const Graph& graph) {
  std::set<Name> leaf_names;
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    verify_node(graph, id);
    if (is_leaf(*node.op) && !leaf_names.insert(leaf_name(node)).second)
      fail(node, id, "two leaves are named '" + to_string(leaf_name(node)) + "'");
  }
  for (const StateUpdate& u : graph.updates()) {
    if (graph.node(u.state).op->name != "state")
      fail(graph.node(u.state), u.state.node, "an update's target is no state");
    if (graph.type(u.state) != graph.type(u.value))
      fail(graph.node(u.state), u.state.node, "an update differs in type");
  }
}

}  // namespace halfstep
