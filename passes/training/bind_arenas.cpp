#include "passes/training/bind_arenas.h"

#include <fnmatch.h>

#include <algorithm>
#include <unordered_map>

#include "base/checked.h"
#include "base/error.h"
#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

Value arena_view(Builder& b, const ArenaLayout& layout, const ArenaSlice& slice, DType dtype) {
  const Value arena = b.state(arena_name(dtype), {dtype, {layout.size}});
  return b.reshape(b.slice(arena, {slice.offset}, {slice.offset + slice.size()}), slice.shape);
}

// The parameter that `node` narrows; nullptr if it is no such cast.
const Node* narrowed_parameter(const Graph& graph, const Node& node) {
  if (!is(node, "cast") || !is_low(node.attributes.dtype("to"))) return nullptr;
  const Node& operand = graph.node(node.operands[0]);
  return is(operand, "parameter") ? &operand : nullptr;
}

bool matches(const Node& parameter, const std::string& pattern) {
  if (pattern == kVectors) return parameter.results[0].shape.size() <= 1;
  return fnmatch(pattern.c_str(), parameter.attributes.text("name").c_str(), 0) == 0;
}

}  // namespace

Name arena_name(DType dtype) {
  Name arena = kParameterArena;
  if (dtype != DType::f32) arena.text += "." + std::string(name(dtype));
  return arena;
}

ArenaLayout plan_arenas(const Graph& graph, const std::vector<std::string>& no_decay) {
  std::vector<const Node*> decayed, others;
  std::vector<std::string> names;
  for (const Node& node : graph.nodes()) {
    if (!is(node, "parameter")) continue;
    names.push_back(node.attributes.text("name"));
    const bool exempt = std::ranges::any_of(no_decay, [&](const std::string& p) { return matches(node, p); });
    (exempt ? others : decayed).push_back(&node);
  }
  for (const std::string& pattern : no_decay)
    if (std::ranges::none_of(others, [&](const Node* node) { return matches(*node, pattern); })) {
      const std::string near = nearest(pattern, names);
      throw Error("no_decay: no parameter is called '" + pattern + "'" +
                  (near.empty() ? "" : "; did you mean '" + near + "'?"));
    }
  ArenaLayout layout;
  const auto lay = [&](const Node& node) {
    const std::string& name = node.attributes.text("name");
    if (node.results[0].dtype != DType::f32)
      throw Error("parameter '" + name + "' is " + to_string(node.results[0]) + "; f32 masters expected");
    layout.slices.push_back({name, node.results[0].shape, node.attributes.ints("permutation"), layout.size});
    layout.size = round_up(checked_add(layout.size, layout.slices.back().size(), "parameters"), kSliceAlignment);
  };
  for (const Node* node : decayed) lay(*node);
  layout.decayed = layout.size;
  for (const Node* node : others) lay(*node);
  if (others.empty()) layout.decayed = round_up(layout.size, kArenaAlignment);
  layout.size = round_up(layout.size, kArenaAlignment);
  return layout;
}

Graph bind_arenas(const Graph& graph, const ArenaLayout& layout) {
  std::unordered_map<std::string_view, const ArenaSlice*> slices;
  for (const ArenaSlice& slice : layout.slices) slices.emplace(slice.name, &slice);
  const auto view = [&](Builder& b, const Node& parameter, DType dtype) {
    const auto found = slices.find(parameter.attributes.text("name"));
    require(found != slices.end(), "every parameter has a slice of the arenas");
    return std::vector<Value>{arena_view(b, layout, *found->second, dtype)};
  };
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value>) -> std::vector<Value> {
    if (is(node, "parameter")) return view(b, node, DType::f32);
    if (const Node* parameter = narrowed_parameter(graph, node))
      return view(b, *parameter, node.attributes.dtype("to"));
    return {};
  });
}

}  // namespace halfstep
