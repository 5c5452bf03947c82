#include "passes/training/unbind_arenas.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "ir/builder.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

bool is_low_arena(const Name& name) { return name == arena_name(DType::f16) || name == arena_name(DType::bf16); }

bool is_arena(const Node& node, const ArenaLayout& layout) {
  return is(node, "state") && node.results[0].shape == Shape{layout.size} && leaf_name(node).is(Role::slot);
}

class Unbinding {
 public:
  Unbinding(const Graph& graph, const ArenaLayout& layout)
      : graph_(graph), layout_(layout), b_(graph.name()), map_(graph), flat_(static_cast<size_t>(graph.size()), false) {
    for (const ArenaSlice& slice : layout.slices)
      if (slice.size() > 0) slices_.push_back(&slice);
  }

  Graph run() {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      OriginScope scope(b_, node.origin);
      flat_[static_cast<size_t>(id)] = is_flat(node);
      if (is_flat_at(id)) continue;  // its pieces are made where they are read
      if (const Value v = of_arena(node)) {
        map_.at({id, 0}) = v;
        continue;
      }
      std::vector<Value> operands;
      for (Value operand : node.operands) {
        require(!operand || !is_flat_at(operand.node), "a value of an arena is read as a whole");
        operands.push_back(map_(operand));
      }
      const NodeId copy = b_.copy(graph_, node, operands);
      for (size_t i = 0; i < node.results.size(); ++i)
        map_.at({id, static_cast<int32_t>(i)}) = {copy, static_cast<int32_t>(i)};
    }
    for (const NamedValue& output : graph_.outputs()) b_.output(output.name, map_(output.value));
    for (const StateUpdate& u : graph_.updates()) update(u);
    return std::move(b_).finish();
  }

 private:
  bool is_flat_at(NodeId id) const { return flat_[static_cast<size_t>(id)]; }

  // Whether the node's value is laid out like the parameters.
  bool is_flat(const Node& node) const {
    if (is_arena(node, layout_)) return true;
    if (index_limit(node)) return node.results[0].shape == Shape{layout_.size};
    if (is(node, "concat")) return node.results[0].shape == Shape{layout_.size} && node.origin.phase == Phase::update;
    return node.op->kernel == KernelKind::pointwise &&
           std::ranges::any_of(node.operands, [&](Value v) { return v && is_flat_at(v.node); });
  }

  // What stands for a node that reads an arena: a view of a parameter, or a reduction. Absent: it reads none. The gaps
  // between slices are zeros, which neither the sums nor the maxima of a step need.
  Value of_arena(const Node& node) {
    if (node.operands.size() != 1 || !node.operands[0] || !is_flat_at(node.operands[0].node)) return {};
    const Value arena = node.operands[0];
    if (is(node, "slice")) {
      const int64_t start = node.attributes.ints("starts")[0], limit = node.attributes.ints("limits")[0];
      for (const ArenaSlice* slice : slices_)
        if (slice->offset == start && slice->offset + slice->size() == limit) return piece(arena, *slice);
      return b_.broadcast(b_.constant(graph_.type(arena).dtype, 0), {0});  // of an empty parameter
    }
    if (!is(node, "reduce_sum") && !is(node, "reduce_max")) return {};
    if (slices_.empty()) return b_.broadcast(b_.constant(graph_.type(arena).dtype, 0), {1});
    std::vector<Value> parts;
    for (const ArenaSlice* slice : slices_) parts.push_back(b_.reduce(node.op->name, piece(arena, *slice), {0}));
    if (parts.size() == 1) return parts[0];
    return b_.reduce(node.op->name, b_.call("concat", parts, {{"axis", int64_t{0}}}), {0});
  }

  // Elements [slice.offset, slice.offset + slice.size()) of a flat value.
  Value piece(Value v, const ArenaSlice& slice) {
    const auto key = std::pair(v, slice.offset);
    if (const auto found = pieces_.find(key); found != pieces_.end()) return found->second;
    const Value result = make_piece(v, slice);
    pieces_.emplace(key, result);
    return result;
  }

  Value make_piece(Value v, const ArenaSlice& slice) {
    const Node& node = graph_.node(v);
    OriginScope scope(b_, node.origin);
    if (is_arena(node, layout_)) return of_state(node, slice);
    if (is(node, "broadcast")) return b_.broadcast(map_(node.operands[0]), {slice.size()});
    if (is(node, "concat")) {
      int64_t at = 0;
      for (Value operand : node.operands) {
        if (at == slice.offset && graph_.type(operand).shape[0] == slice.size()) return map_(operand);
        at += graph_.type(operand).shape[0];
      }
      throw InternalError("a slice of the arenas is no operand of their concat");
    }
    if (!is_flat_at(v.node)) return b_.slice(map_(v), {slice.offset}, {slice.offset + slice.size()});
    if (const std::optional<double> limit = index_limit(node))
      return piece(node.operands[static_cast<double>(slice.offset) < *limit ? 1 : 2], slice);
    std::vector<Value> operands;
    for (Value operand : node.operands) operands.push_back(piece(operand, slice));
    return b_.call(node.op->name, std::move(operands), node.attributes);
  }

  // Of a choice by an element's index: where the second value begins, which is the beginning of a slice.
  std::optional<double> index_limit(const Node& node) const {
    if (!is(node, "select")) return std::nullopt;
    const Node& condition = graph_.node(node.operands[0]);
    if (!is(condition, "less") || !is(graph_.node(condition.operands[0]), "iota")) return std::nullopt;
    return splat(graph_, condition.operands[1]);
  }

  static Name state_name(const Node& arena, const ArenaSlice& slice) {
    const Name name = leaf_name(arena);
    if (name == kParameterArena || is_low_arena(name)) return slice.name;
    return {Role::slot, name.text + "/" + slice.name};
  }

  Value state_of(const Node& arena, const ArenaSlice& slice) {
    return b_.state(state_name(arena, slice), {DType::f32, permuted(slice.shape, onnx_axes(slice))});
  }
  // onnx = transpose(stored, onnx_axes)
  static Ints onnx_axes(const ArenaSlice& slice) {
    if (!slice.permutation.empty()) return inverse(slice.permutation);
    Ints axes;
    for (size_t i = 0; i < slice.shape.size(); ++i) axes.push_back(static_cast<int64_t>(i));
    return axes;
  }

  Value of_state(const Node& arena, const ArenaSlice& slice) {
    const Value stored = b_.transpose(state_of(arena, slice), inverse(onnx_axes(slice)));
    return b_.reshape(b_.cast(stored, arena.results[0].dtype), {slice.size()});
  }

  void update(const StateUpdate& u) {
    const Node& state = graph_.node(u.state);
    if (!is_arena(state, layout_)) return b_.update(map_(u.state), map_(u.value));
    if (is_low_arena(leaf_name(state))) return;
    OriginScope scope(b_, graph_.node(u.value).origin);
    for (const ArenaSlice* slice : slices_)
      b_.update(state_of(state, *slice),
                b_.transpose(b_.reshape(piece(u.value, *slice), slice->shape), onnx_axes(*slice)));
  }

  const Graph& graph_;
  const ArenaLayout& layout_;
  Builder b_;
  ValueMap map_;
  std::vector<bool> flat_;  // by node
  std::vector<const ArenaSlice*> slices_;
  std::map<std::pair<Value, int64_t>, Value> pieces_;  // by offset
};

}  // namespace

Graph unbind_arenas(const Graph& graph, const ArenaLayout& layout) { return Unbinding(graph, layout).run(); }

}  // namespace halfstep
