#include "compiler/inspect/casts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>

#include "ir/op.h"
#include "ir/views.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

bool casts(const Graph& graph, const Node& node) {
  return is(node, "cast") && is_cast_type(graph.type(node.operands[0]).dtype) && is_cast_type(node.results[0].dtype);
}

bool only_moves(const Node& node) {
  return is(node, "cast") || node.op->kernel == KernelKind::movement || node.op->kernel == KernelKind::leaf;
}

// The name of the weight that begins there.
std::string weight_at(const ArenaLayout& arenas, const Ints& starts) {
  if (starts.size() != 1) return "";
  const auto found = std::ranges::find(arenas.slices, starts[0], &ArenaSlice::offset);
  return found == arenas.slices.end() ? "" : found->name;
}

class Casts {
 public:
  explicit Casts(const CastSources& sources)
      : sources_(sources),
        forward_(sources.forward),
        calls_(sources.calls),
        step_(sources.calls.graph),
        reason_(sources.reason) {
    calls_of_.resize(static_cast<size_t>(step_.size()));
    for (size_t i = 0; i < calls_.calls.size(); ++i)
      for (NodeId id : calls_.calls[i].nodes) calls_of_[static_cast<size_t>(id)].push_back(i);
    for (NodeId id = 0; id < step_.size(); ++id)
      if (casts(step_, step_.node(id))) unseen_[key_of(step_, step_.node(id))].insert(id);
    for (const Node& node : forward_.nodes())
      has_gradient_.push_back(is(node, "parameter") || std::ranges::any_of(node.operands, [&](Value v) {
                                return v && has_gradient_[static_cast<size_t>(v.node)];
                              }));
  }

  std::vector<InspectedCast> run(int64_t& in_kernels) {
    const auto users = forward_.users();
    for (NodeId id = 0; id < forward_.size(); ++id)
      if (casts(forward_, forward_.node(id))) add_forward(id, users[static_cast<size_t>(id)]);
    const auto step_users = step_.users();
    in_kernels = 0;
    for (const auto& [key, nodes] : unseen_)
      for (NodeId id : nodes) {
        if (step_.node(id).origin.phase == Phase::update && step_.node(id).results[0].dtype != DType::f32) continue;
        InspectedCast cast = described(step_, id, step_users[static_cast<size_t>(id)]);
        place(cast, id);
        if (cast.moved == 0) {
          ++in_kernels;
          continue;
        }
        const std::string why = reason_(cast.at);
        cast.reason = cast.phase == Phase::update
                          ? fmt::format("the optimizer computes in {}", name(cast.is))
                          : fmt::format("'{}' reads {}{}", cast.at, name(cast.is), why.empty() ? "" : ": " + why);
        rows_.push_back(std::move(cast));
      }
    return std::move(rows_);
  }

 private:
  using Key = std::tuple<std::string, Phase, DType, DType, int64_t>;
  static Key key_of(const Graph& graph, const Node& node) {
    return {*node.origin.name, node.origin.phase, graph.type(node.operands[0]).dtype, node.results[0].dtype,
            node.results[0].element_count()};
  }

  InspectedCast described(const Graph& graph, NodeId id, const std::vector<NodeId>& users) const {
    const Node& node = graph.node(id);
    InspectedCast cast;
    cast.at = *node.origin.name, cast.phase = node.origin.phase;
    cast.from = (&graph == &step_ ? sources_.step_names : sources_.forward_names)(node.operands[0]);
    cast.was = graph.type(node.operands[0]).dtype, cast.is = node.results[0].dtype;
    cast.elements = node.results[0].element_count();
    cast.bytes = cast.elements * (size_of(cast.was) + size_of(cast.is));
    for (NodeId user : users)
      if (const std::string& to = *graph.node(user).origin.name;
          !to.empty() && std::ranges::find(cast.to, to) == cast.to.end())
        cast.to.push_back(to);
    if (!cast.to.empty() && std::ranges::find(cast.to, cast.at) == cast.to.end()) cast.at = cast.to.front();
    return cast;
  }

  // What the calls make of the cast `id` of the step.
  void place(InspectedCast& cast, NodeId id) const {
    const int64_t read = cast.elements * size_of(cast.was), written = cast.elements * size_of(cast.is);
    const Value operand = step_.node(id).operands[0];
    cast.place = InspectedCast::in_kernel, cast.moved = 0;
    for (size_t i : calls_of_[static_cast<size_t>(id)]) {
      const FusedCall& call = calls_.calls[i];
      if (std::ranges::find(call.writes, Value{id, 0}) == call.writes.end()) continue;
      const bool moves_alone =
          std::ranges::all_of(call.nodes, [&](NodeId other) { return only_moves(step_.node(other)); });
      const bool made_here = std::ranges::binary_search(call.nodes, operand.node);
      const bool stored_too = !made_here || std::ranges::find(call.writes, operand) != call.writes.end();
      if (moves_alone)
        cast.place = InspectedCast::alone, cast.moved += read + written;
      else if (stored_too)
        cast.place = InspectedCast::beside, cast.moved += written;
    }
  }

  void add_forward(NodeId id, const std::vector<NodeId>& users) {
    InspectedCast cast = described(forward_, id, users);
    cast.is_weight = is_weight(forward_.node(id).operands[0]);
    const std::string why = reason_(cast.at);
    cast.reason = fmt::format("'{}' reads {}{}", cast.at, name(cast.is), why.empty() ? "" : ": " + why);
    const Node& node = forward_.node(id);
    if (const std::optional<NodeId> same = take(key_of(forward_, node))) {
      place(cast, *same);
    } else if (cast.is_weight && is_low(cast.is)) {
      cast.place = InspectedCast::optimizer, cast.moved = cast.elements * size_of(cast.is);
    }
    auto [origin, phase, was, is, elements] = key_of(forward_, node);
    rows_.push_back(cast);
    if (!has_gradient_[static_cast<size_t>(node.operands[0].node)]) return;
    const std::optional<NodeId> reverse = take({origin, Phase::backward, is, was, elements});
    if (!reverse) return;
    InspectedCast back = cast;
    std::swap(back.was, back.is);
    back.phase = Phase::backward, back.from = cast.at, back.to = {cast.from};
    back.reason = fmt::format("the gradient of the cast before '{}'", cast.at);
    place(back, *reverse);
    rows_.push_back(std::move(back));
  }

  bool is_weight(Value v) const {
    while (forward_.node(v).op->kernel == KernelKind::movement && !forward_.node(v).operands.empty())
      v = forward_.node(v).operands[0];
    return is(forward_.node(v), "parameter");
  }

  std::optional<NodeId> take(const Key& key) {
    const auto found = unseen_.find(key);
    if (found == unseen_.end() || found->second.empty()) return std::nullopt;
    const NodeId id = *found->second.begin();
    found->second.erase(found->second.begin());
    return id;
  }

  const CastSources& sources_;
  const Graph& forward_;
  const FusedCalls& calls_;
  const Graph& step_;
  const std::function<std::string(const std::string&)>& reason_;
  std::vector<std::vector<size_t>> calls_of_;  // of the step's nodes
  std::vector<char> has_gradient_;             // of the forward's nodes: they depend on a parameter
  std::map<Key, std::set<NodeId>> unseen_;     // the step's casts
  std::vector<InspectedCast> rows_;
};

}  // namespace

bool is_cast_type(DType type) { return type == DType::f32 || is_low(type); }

bool SourceNames::passes(const Node& node, NodeId id) const {
  return only_moves(node) && node.operands.size() == 1 && !main_[static_cast<size_t>(id)];
}

std::string SourceNames::operator()(Value v) const {
  for (;;) {
    const Node& node = graph_.node(v);
    if (arenas_ && node.op->index_map == IndexMap::part && is(graph_.node(node.operands[0]), "state"))
      if (const std::string weight = weight_at(*arenas_, node.attributes.ints("starts")); !weight.empty())
        return weight;
    if (is_leaf(*node.op)) return to_string(leaf_name(node));
    if (node.op->leaf == Leaf::constant) return node.origin.name.empty() ? "a constant" : *node.origin.name;
    if (!passes(node, v.node)) return *node.origin.name;
    v = node.operands[0];
  }
}

std::optional<DType> SourceNames::cast_from(Value v) const {
  while (passes(graph_.node(v), v.node)) {
    if (casts(graph_, graph_.node(v))) return graph_.type(graph_.node(v).operands[0]).dtype;
    v = graph_.node(v).operands[0];
  }
  return std::nullopt;
}

std::string_view name(InspectedCast::Place place) {
  constexpr std::array<std::string_view, 5> kNames{"alone", "beside", "in_kernel", "optimizer", "none"};
  return kNames[place];
}

std::vector<InspectedCast> inspect_casts(const CastSources& sources, int64_t& in_kernels) {
  return Casts(sources).run(in_kernels);
}

}  // namespace halfstep
