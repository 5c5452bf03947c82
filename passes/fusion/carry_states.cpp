#include "passes/fusion/carry_states.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"

namespace halfstep {
namespace {

class CarryStates {
 public:
  explicit CarryStates(const Graph& graph) : graph_(graph), map_(graph), builder_(graph.name()) {
    for (const StateUpdate& update : graph.updates())
      if (carries(update)) of_maker_[update.value.node].push_back(update.state);
  }

  Graph run() && {
    if (of_maker_.empty()) return graph_;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      builder_.set_origin(node.origin);
      std::vector<Value> operands;
      for (const Value v : node.operands) operands.push_back(is_view(graph_, node) ? map_(v) : now(v, readers_));
      const auto states = of_maker_.find(id);
      if (states == of_maker_.end()) {
        const NodeId made = builder_.copy(graph_, node, operands);
        for (int32_t r = 0; r < std::ssize(node.results); ++r) map_.at({id, r}) = {made, r};
      } else {
        emit(node, id, states->second, std::move(operands));
      }
    }
    for (const NamedValue& o : graph_.outputs()) builder_.output(o.name, now(o.value, outputs_));
    for (const StateUpdate& u : graph_.updates()) builder_.update(map_(u.state), map_(u.value));
    return std::move(builder_).finish();
  }

 private:
  Value storage(Value v) const {
    while (v && is_view(graph_, graph_.node(v))) v = graph_.node(v).operands[0];
    return v;
  }
  bool reads_later(Value state, NodeId maker) const {
    for (NodeId id = maker + 1; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      if (!is_view(graph_, node) &&
          std::ranges::any_of(node.operands, [&](Value v) { return v && storage(v) == state; }))
        return true;
    }
    return false;
  }
  bool is_delivered(Value state) const {
    return std::ranges::any_of(graph_.outputs(), [&](const NamedValue& o) { return storage(o.value) == state; });
  }

  bool carries(const StateUpdate& update) const {
    const Node& maker = graph_.node(update.value);
    return maker.op->kernel == KernelKind::fused && graph_.type(update.state).element_count() == 1 &&
           std::ranges::count(maker.operands, update.state) == 1 &&
           std::ranges::count_if(maker.operands, [&](Value v) { return storage(v) == update.state; }) == 1 &&
           (reads_later(update.state, update.value.node) || is_delivered(update.state));
  }

  // What stands for a value of the graph at this point.
  Value now(Value v, const std::map<Value, Value>& carried) {
    const auto found = v ? carried.find(storage(v)) : carried.end();
    return found == carried.end() ? map_(v) : builder_.reshape(found->second, graph_.type(v).shape);
  }

  // With the old values as further results: one for later calls and one for the outputs, which have memory of their
  // own.
  void emit(const Node& node, NodeId id, const std::vector<Value>& states, std::vector<Value> operands) {
    const Graph& body = node.attributes.region("body");
    Builder region(body.name());
    const ValueMap inside = copy_nodes(body, region);
    std::vector<Value> inputs;
    for (NodeId i = 0; i < body.size(); ++i)
      if (body.node(i).op->leaf == Leaf::input) inputs.push_back(inside({i, 0}));
    int32_t count = 0;
    for (const NamedValue& o : body.outputs()) region.output(o.name, inside(o.value)), ++count;
    std::vector<std::pair<std::map<Value, Value>*, Value>> more;
    for (const Value state : states) {
      const Value old = inputs[static_cast<size_t>(std::ranges::find(node.operands, state) - node.operands.begin())];
      const auto carry = [&](std::map<Value, Value>& to) {
        region.output(std::to_string(count++), old);
        more.emplace_back(&to, state);
      };
      if (reads_later(state, id)) carry(readers_);
      if (is_delivered(state)) carry(outputs_);
    }
    const std::vector<Value> made = builder_.fused(std::move(operands), std::move(region).finish());
    for (int32_t r = 0; r < std::ssize(node.results); ++r) map_.at({id, r}) = made[static_cast<size_t>(r)];
    for (size_t i = 0; i < more.size(); ++i) (*more[i].first)[more[i].second] = made[node.results.size() + i];
  }

  const Graph& graph_;
  std::map<NodeId, std::vector<Value>> of_maker_;  // the states whose old values a call hands on
  std::map<Value, Value> readers_, outputs_;       // by state: the old value, once its call is built
  ValueMap map_;
  Builder builder_;
};

}  // namespace

Graph carry_states(const Graph& graph) { return CarryStates(graph).run(); }

}  // namespace halfstep
