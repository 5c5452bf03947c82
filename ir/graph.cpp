#include "ir/graph.h"

#include "ir/op.h"

namespace halfstep {

std::string_view name(Phase phase) {
  switch (phase) {
    case Phase::forward:
      return "forward";
    case Phase::loss:
      return "loss";
    case Phase::backward:
      return "backward";
    case Phase::update:
      return "update";
  }
  return "";
}

std::string to_string(const Origin& origin) {
  if (origin.phase == Phase::forward) return origin.name;
  return (origin.name.empty() ? "" : *origin.name + " ") + "(" + std::string(name(origin.phase)) + ")";
}

Name leaf_name(const Node& leaf) {
  const Attribute* role = leaf.attributes.find("role");
  return {role ? *parse_role(std::get<std::string>(*role)) : Role::model, leaf.attributes.text("name")};
}

Graph Graph::named(std::string name) const {
  Graph graph = *this;
  graph.name_ = std::move(name);
  return graph;
}

Value Graph::output(const Name& wanted) const {
  for (const NamedValue& o : outputs_)
    if (o.name == wanted) return o.value;
  return {};
}

Value Graph::leaf(const Name& wanted) const {
  for (NodeId id = 0; id < size(); ++id)
    if (is_leaf(*node(id).op) && node(id).attributes.text("name") == wanted.text && leaf_name(node(id)) == wanted)
      return {id, 0};
  return {};
}

std::vector<std::vector<NodeId>> Graph::users() const {
  std::vector<std::vector<NodeId>> users(nodes_.size());
  for (NodeId id = 0; id < size(); ++id)
    for (Value v : node(id).operands)
      if (v)
        if (auto& u = users[static_cast<size_t>(v.node)]; u.empty() || u.back() != id) u.push_back(id);
  return users;
}

}  // namespace halfstep
