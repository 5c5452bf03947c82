#include "passes/training/bind_arenas.h"

#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <set>
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

// What reads a parameter says what it is.
struct Reading {
  bool chosen_from = false;  // a table, whose rows ids choose
  bool by_columns = false;   // a product whose outputs lie along the stored tensor's last axis
};

std::vector<Reading> readings(const Graph& graph) {
  constexpr NodeId kOther = -1;
  std::vector<NodeId> of(static_cast<size_t>(graph.size()), kOther);  // the parameter that a value holds as it is
  std::vector<Reading> result(static_cast<size_t>(graph.size()));
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    const auto parameter = [&](size_t operand) {
      return node.operands.size() > operand && node.operands[operand]
                 ? of[static_cast<size_t>(node.operands[operand].node)]
                 : kOther;
    };
    if (is(node, "parameter")) of[static_cast<size_t>(id)] = id;
    if (is(node, "cast")) of[static_cast<size_t>(id)] = parameter(0);
    if (is(node, "gather") && parameter(0) != kOther) result[static_cast<size_t>(parameter(0))].chosen_from = true;
    if (node.op->kernel == KernelKind::gemm && parameter(1) != kOther && node.attributes.find("transpose_b"))
      result[static_cast<size_t>(parameter(1))].by_columns |= node.attributes.integer("transpose_b") == 0;
    if (node.op->kernel == KernelKind::gemm && !node.attributes.find("transpose_b") && parameter(1) != kOther)
      result[static_cast<size_t>(parameter(1))].by_columns = true;
  }
  return result;
}

// The first of `rows` whose pattern names the parameter; their number: none.
template <typename Row, typename PatternsOf>
size_t first_match(const Node& parameter, const std::vector<Row>& rows, const PatternsOf& patterns_of,
                   std::set<std::string>& used) {
  size_t found = rows.size();
  for (size_t i = 0; i < rows.size(); ++i)
    for (const std::string& pattern : patterns_of(rows[i]))
      if (matches(parameter, pattern)) {
        used.insert(pattern);
        found = std::min(found, i);
      }
  return found;
}

// By node, whether the loss is computed of it by way of floating values. Others have no gradient, and no decay either:
// a head without a loss stays, and so does what is only compared.
std::vector<char> reach_the_loss(const Graph& graph) {
  std::vector<char> reached(static_cast<size_t>(graph.size()), 0);
  const Value loss = graph.output(kLoss);
  if (!loss) return std::vector<char>(reached.size(), 1);
  reached[static_cast<size_t>(loss.node)] = 1;
  for (NodeId id = graph.size(); id-- > 0;)
    for (const Value operand : graph.node(id).operands)
      if (operand && reached[static_cast<size_t>(id)] && is_floating(graph.type(operand).dtype))
        reached[static_cast<size_t>(operand.node)] = 1;
  return reached;
}

// Patterns that no parameter has, each with the key that holds it.
class Patterns {
 public:
  explicit Patterns(const Graph& graph) : names_{std::string(kVectors)} {
    for (const Node& node : graph.nodes())
      if (is(node, "parameter")) names_.push_back(node.attributes.text("name"));
  }
  void expect(const char* key, const std::string& pattern, const std::set<std::string>& used) {
    if (used.contains(pattern)) return;
    const std::string near = nearest(pattern, names_);
    problems_.add(std::string(key) + ": no parameter is called '" + pattern + "'" +
                  (near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  void throw_if_any() { problems_.throw_if_any(); }

 private:
  std::vector<std::string> names_;
  Problems problems_;
};

}  // namespace

Name arena_name(DType dtype) {
  Name arena = kParameterArena;
  if (dtype != DType::f32) arena.text += "." + std::string(name(dtype));
  return arena;
}

Shape ArenaSlice::file_shape() const { return permutation.empty() ? shape : permuted(shape, inverse(permutation)); }

ArenaLayout plan_arenas(const Graph& graph, const ArenaOrder& order) {
  struct Place {
    size_t group = 0, unfreeze = 0;  // their rows; their number: none
    bool exempt = false, others = false;
    auto operator<=>(const Place&) const = default;
  };
  std::set<std::string> used_decay, used_groups, used_unfreeze;
  std::map<Place, std::vector<const Node*>> by_place;
  const std::vector<Reading> read = readings(graph);
  const std::vector<char> reached = reach_the_loss(graph);
  const auto reading = [&](const Node& node) { return read[static_cast<size_t>(&node - graph.nodes().data())]; };
  for (const Node& node : graph.nodes()) {
    if (!is(node, "parameter")) continue;
    Place place;
    const size_t group =
        first_match(node, order.groups, [](const ParameterGroup& g) { return g.patterns; }, used_groups);
    const size_t unfreeze =
        first_match(node, order.unfreeze, [](const auto& row) { return std::vector{row.first}; }, used_unfreeze);
    // Those of no group come first.
    place.group = group == order.groups.size() ? 0 : group + 1;
    place.unfreeze = unfreeze == order.unfreeze.size() ? 0 : unfreeze + 1;
    place.exempt = first_match(
                       node, order.no_decay, [](const std::string& p) { return std::vector{p}; }, used_decay) <
                       order.no_decay.size() ||
                   !reached[static_cast<size_t>(&node - graph.nodes().data())];
    place.others =
        order.apart == OptimizerRow::matrices && (node.results[0].shape.size() != 2 || reading(node).chosen_from ||
                                                  (place.group > 0 && order.groups[place.group - 1].rest));
    by_place[place].push_back(&node);
  }
  Patterns patterns(graph);
  for (const std::string& pattern : order.no_decay) patterns.expect("no_decay", pattern, used_decay);
  for (const ParameterGroup& group : order.groups)
    for (const std::string& pattern : group.patterns) patterns.expect("group", pattern, used_groups);
  for (const auto& [pattern, epoch] : order.unfreeze) patterns.expect("unfreeze", pattern, used_unfreeze);
  patterns.throw_if_any();

  ArenaLayout layout;
  const auto lay = [&](const Node& node) {
    const std::string& name = node.attributes.text("name");
    if (node.results[0].dtype != DType::f32)
      throw Error("parameter '" + name + "' is " + to_string(node.results[0]) + "; f32 masters expected");
    ArenaSlice slice{.name = name,
                     .shape = node.results[0].shape,
                     .permutation = node.attributes.ints("permutation"),
                     .offset = layout.size,
                     .segment = layout.segments.size()};
    if (const size_t axes = slice.shape.size(); axes > 0 && reading(node).by_columns) {
      slice.output_axis = static_cast<int64_t>(axes) - 1;
      if (!slice.permutation.empty()) slice.output_axis = slice.permutation.back();
    } else if (!slice.permutation.empty()) {
      slice.output_axis = slice.permutation.front();
    }
    layout.size = round_up(checked_add(layout.size, slice.size(), "parameters"), kSliceAlignment);
    layout.slices.push_back(std::move(slice));
  };
  for (const auto& [place, nodes] : by_place) {
    for (const Node* node : nodes) lay(*node);
    ArenaSegment segment{.end = layout.size, .weight_decay = order.weight_decay, .apart = !place.others};
    ArenaRate rate;
    if (place.group > 0) {
      const ParameterGroup& group = order.groups[place.group - 1];
      segment.weight_decay = group.weight_decay.value_or(segment.weight_decay);
      if (group.rate == ParameterGroup::own) rate.group = place.group - 1;
    }
    if (place.unfreeze > 0) rate.from_epoch = order.unfreeze[place.unfreeze - 1].second;
    if (place.exempt) segment.weight_decay = 0;
    segment.rate = static_cast<size_t>(std::ranges::find(layout.rates, rate) - layout.rates.begin());
    if (segment.rate == layout.rates.size()) layout.rates.push_back(rate);
    layout.segments.push_back(segment);
  }
  layout.size = round_up(layout.size, kArenaAlignment);
  if (layout.segments.empty()) layout.segments.push_back({.weight_decay = order.weight_decay}), layout.rates.resize(1);
  layout.segments.back().end = layout.size;
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
