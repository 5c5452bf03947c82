#include "passes/fusion/order_calls.h"

#include <algorithm>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/fusion/call_memory.h"

namespace halfstep {
namespace {

class Ordering {
 public:
  explicit Ordering(const Graph& graph)
      : graph_(graph),
        memory_(graph),
        builder_(graph.name()),
        map_(graph),
        done_(graph.nodes().size(), 0),
        missing_(graph.nodes().size(), 0),
        waiting_(graph.nodes().size()) {
    for (const StoredValue& v : memory_.values()) readers_left_.push_back(v.readers.size());
    for (NodeId id = 0; id < graph.size(); ++id) {
      if (!memory_.is_call(id)) continue;
      missing_[static_cast<size_t>(id)] = memory_.needs(id).size();
      for (const NodeId needed : memory_.needs(id)) waiting_[static_cast<size_t>(needed)].push_back(id);
    }
  }

  Graph run() && {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!done_[static_cast<size_t>(id)]) emit(id);
      while (!candidates_.empty()) {
        const NodeId at = candidates_.back();
        candidates_.pop_back();
        if (!done_[static_cast<size_t>(at)] && missing_[static_cast<size_t>(at)] == 0 && pays(at)) emit(at);
      }
    }
    for (const NamedValue& o : graph_.outputs()) builder_.output(o.name, map_(o.value));
    for (const StateUpdate& u : graph_.updates()) builder_.update(map_(u.state), map_(u.value));
    return std::move(builder_).finish();
  }

 private:
  int64_t bytes(int value) const { return memory_.values()[static_cast<size_t>(value)].bytes; }

  // Whether a call whose operands are there should run now.
  bool pays(NodeId call) const {
    constexpr int64_t kSum = 16;  // a sum reads this many times what it makes
    int64_t made = 0, freed = 0, read = 0;
    for (const int value : memory_.made(call)) made += bytes(value);
    for (const int value : memory_.read(call)) {
      read += bytes(value);
      if (readers_left_[static_cast<size_t>(value)] == 1) freed += bytes(value);
    }
    return made <= freed || made * kSum <= read;
  }

  // Leaves and views too; what a call's views look at is there before it.
  void emit(NodeId id) {
    std::vector<NodeId> stack{id};
    while (!stack.empty()) {
      const NodeId at = stack.back();
      bool ready = true;
      for (const Value v : graph_.node(at).operands)
        if (v && !done_[static_cast<size_t>(v.node)]) stack.push_back(v.node), ready = false;
      if (!ready) continue;
      stack.pop_back();
      if (!done_[static_cast<size_t>(at)]) copy(at);
    }
  }

  void copy(NodeId id) {
    const Node& node = graph_.node(id);
    std::vector<Value> operands;
    for (const Value v : node.operands) operands.push_back(map_(v));
    builder_.set_origin(node.origin);
    const NodeId made = builder_.copy(graph_, node, operands);
    for (int32_t r = 0; r < static_cast<int32_t>(node.results.size()); ++r) map_.at({id, r}) = {made, r};
    done_[static_cast<size_t>(id)] = 1;
    if (!memory_.is_call(id)) return;
    for (const int value : memory_.read(id))
      if (--readers_left_[static_cast<size_t>(value)] == 1) add_last_reader(value);
    for (const NodeId call : waiting_[static_cast<size_t>(id)])
      if (--missing_[static_cast<size_t>(call)] == 0) candidates_.push_back(call);
  }

  // It may free the value now.
  void add_last_reader(int value) {
    const std::vector<NodeId>& readers = memory_.values()[static_cast<size_t>(value)].readers;
    const auto last = std::ranges::find_if(readers, [&](NodeId r) { return !done_[static_cast<size_t>(r)]; });
    if (last != readers.end()) candidates_.push_back(*last);
  }

  const Graph& graph_;
  const CallMemory memory_;
  Builder builder_;
  ValueMap map_;
  std::vector<char> done_;
  std::vector<size_t> missing_;               // by call: needs that are not done
  std::vector<std::vector<NodeId>> waiting_;  // by call: the calls that need it
  std::vector<size_t> readers_left_;          // by value
  std::vector<NodeId> candidates_;            // that may pay now
};

}  // namespace

Graph order_calls(const Graph& graph) { return Ordering(graph).run(); }

}  // namespace halfstep
