#include "passes/fusion/recompute.h"

#include <map>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/fusion/recompute_plan.h"

namespace halfstep {
namespace {

class Rebuild {
 public:
  Rebuild(const Graph& graph, const RecomputePlan& plan)
      : graph_(graph), plan_(plan), builder_(graph.name()), map_(graph) {}

  Graph run() && {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      if (is_view(graph_, node)) {
        copy(id, operands_of(node));  // for those that read the first life
        continue;
      }
      if (plan_.waits(id)) continue;
      call(id, id);
      for (const NodeId waiting : plan_.behind(id)) call(waiting, id);
    }
    for (const NamedValue& o : graph_.outputs()) builder_.output(o.name, map_(o.value));
    for (const StateUpdate& u : graph_.updates()) builder_.update(map_(u.state), map_(u.value));
    return std::move(builder_).finish();
  }

 private:
  std::vector<Value> operands_of(const Node& node) const {
    std::vector<Value> operands;
    for (const Value v : node.operands) operands.push_back(map_(v));
    return operands;
  }
  // A call that reads what is there at `time`.
  void call(NodeId id, NodeId time) {
    const Node& node = graph_.node(id);
    if (!plan_.hosted_by(id).empty()) {
      with_hosted(id);
    } else {
      std::vector<Value> operands;
      for (const Value v : node.operands) operands.push_back(at(v, time));
      copy(id, operands);
    }
    if (node.op->kernel != KernelKind::leaf) last_call_ = map_({id, 0});
  }

  void copy(NodeId id, const std::vector<Value>& operands) {
    const Node& node = graph_.node(id);
    builder_.set_origin(node.origin);
    const NodeId made = builder_.copy(graph_, node, operands);
    for (int32_t r = 0; r < static_cast<int32_t>(node.results.size()); ++r) map_.at({id, r}) = {made, r};
  }

  // What stands for `v` where call `reader` reads it, or a call that is made again before it.
  Value at(Value v, NodeId reader) {
    if (!v) return v;
    const Node& node = graph_.node(v);
    if (is_view(graph_, node)) {
      const Value from = at(node.operands[0], reader);
      if (from == map_(node.operands[0])) return map_(v);
      std::vector<Value> operands = operands_of(node);
      operands[0] = from;
      builder_.set_origin(node.origin);
      return {builder_.copy(graph_, node, operands), v.result};
    }
    const Lives* lives = plan_.lives(v);
    if (!lives) return map_(v);
    const auto later = lives->again.upper_bound(reader);
    if (later == lives->again.begin()) return map_(v);
    const auto& [time, again] = *std::prev(later);
    const auto [made, is_new] = made_.try_emplace({v, time});
    if (is_new) {
      const Value result = make(v, again, time);
      made_[{v, time}] = result;
      return result;
    }
    return made->second;
  }

  // The first operand waits for the last call, so that the node is one of its own.
  Value make(Value v, const Again& again, NodeId time) {
    const Node& node = graph_.node(v);
    bool waits = false;
    const auto read = [&](Value operand) {
      const Value from = at(operand, time);
      if (waits || !from) return from;
      waits = true;
      return after(builder_, from, last_call_);
    };
    builder_.set_origin(node.origin);
    if (node.op->kernel != KernelKind::fused) {
      std::vector<Value> operands;
      for (const Value operand : node.operands) operands.push_back(read(operand));
      builder_.set_origin(node.origin);
      return {builder_.copy(graph_, node, operands), v.result};
    }
    Region region;
    region.output(part(region, v, again, read));
    builder_.set_origin(node.origin);
    return std::move(region).finish(builder_)[0];
  }

  // A kernel's body in the making; each value that it reads is one operand.
  class Region {
   public:
    Value input(Value operand, const TensorType& type) {
      const auto [input, is_new] = inputs_.try_emplace(operand);
      if (!is_new) return input->second;
      input->second = builder.input(std::to_string(operands_.size()), type);
      operands_.push_back(operand);
      return input->second;
    }
    void output(Value v) { builder.output(std::to_string(outputs_++), v); }
    std::vector<Value> finish(Builder& graph) && {
      return graph.fused(std::move(operands_), std::move(builder).finish());
    }

    Builder builder{"body"};

   private:
    std::map<Value, Value> inputs_;
    std::vector<Value> operands_;
    int outputs_ = 0;
  };

  // Adds what `inside` names of a fused node's body; `read` gives the value that stands for an operand.
  ValueMap add(Region& region, const Node& node, const std::vector<char>& inside, const auto& read,
               const std::vector<std::pair<Value, Value>>& given = {}) {
    const Graph& body = node.attributes.region("body");
    ValueMap made(body);
    size_t number = 0;
    for (NodeId id = 0; id < body.size(); ++id)
      if (is_leaf(*body.node(id).op)) {
        const Value operand = node.operands[number++];
        if (inside[static_cast<size_t>(id)]) made.at({id, 0}) = region.input(read(operand), graph_.type(operand));
      }
    for (const auto& [value, operand] : given) made.at(value) = region.input(read(operand), graph_.type(operand));
    for (NodeId id = 0; id < body.size(); ++id) {
      if (!inside[static_cast<size_t>(id)] || is_leaf(*body.node(id).op)) continue;
      std::vector<Value> arguments;
      for (const Value operand : body.node(id).operands) arguments.push_back(made(operand));
      const NodeId copied = region.builder.copy(body, body.node(id), arguments);
      for (int32_t r = 0; r < static_cast<int32_t>(body.node(id).results.size()); ++r)
        if (!made(Value{id, r})) made.at({id, r}) = {copied, r};
    }
    return made;
  }

  // The part of a fused node's body that makes `v`.
  Value part(Region& region, Value v, const Again& again, const auto& read) {
    const Node& node = graph_.node(v);
    const Graph& body = node.attributes.region("body");
    std::vector<std::pair<Value, Value>> given;
    for (const int32_t result : again.given)
      given.emplace_back(body.outputs()[static_cast<size_t>(result)].value, Value{v.node, result});
    return add(region, node, again.inside, read, given)(body.outputs()[static_cast<size_t>(v.result)].value);
  }

  // Kernel `id` with the values that it hosts.
  void with_hosted(NodeId id) {
    const Node& node = graph_.node(id);
    const Graph& body = node.attributes.region("body");
    const auto read = [&](Value operand) { return at(operand, id); };
    Region region;
    const ValueMap own = add(region, node, std::vector<char>(body.nodes().size(), 1), read);
    for (const NamedValue& output : body.outputs()) region.output(own(output.value));
    for (const int number : plan_.hosted_by(id))
      region.output(part(region, plan_.value_of(number), plan_.lives(number).again.at(id), read));
    builder_.set_origin(node.origin);
    const std::vector<Value> results = std::move(region).finish(builder_);
    const size_t count = body.outputs().size();
    for (size_t r = 0; r < count; ++r) map_.at({id, static_cast<int32_t>(r)}) = results[r];
    for (size_t i = count; i < results.size(); ++i)
      made_[{plan_.value_of(plan_.hosted_by(id)[i - count]), id}] = results[i];
  }

  const Graph& graph_;
  const RecomputePlan& plan_;
  Builder builder_;
  ValueMap map_;
  std::map<std::pair<Value, NodeId>, Value> made_;
  Value last_call_;
};

}  // namespace

Graph recompute(const Graph& graph, int64_t budget, int overlap, Recomputation& done) {
  const CallMemory memory(graph);
  RecomputePlan plan(graph, memory, overlap);
  plan.run(budget, done);
  return done.values == 0 ? graph : Rebuild(graph, plan).run();
}

}  // namespace halfstep
