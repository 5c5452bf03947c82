#include "passes/fusion/recompute.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/fusion/call_memory.h"

namespace halfstep {
namespace {

// What a call computed again costs, about, on a large GPU; only ratios matter.
constexpr double kLaunch = 3, kBytesEachMicrosecond = 2.5e6, kFlopsEachMicrosecond = 4e8;

struct Earlier;

// A call again, for one of its results.
struct Again {
  std::vector<char> inside;     // fused: by node of the body, whether it is computed
  std::vector<int32_t> given;   // fused: other results of the call that are read instead of computed
  std::vector<int> reads;       // numbers of values
  std::vector<Earlier> before;  // values that are no longer there, each computed again first
  int64_t traffic = 0;
  double flops = 0;
  double microseconds() const {
    return kLaunch + std::max(static_cast<double>(traffic) / kBytesEachMicrosecond, flops / kFlopsEachMicrosecond);
  }
};
struct Earlier {
  int number;
  Again again;
};

// A value's lives: it is made at the first place and at each of `again`, and read at all of `readers`.
struct Lives {
  int number = 0;
  std::set<NodeId> readers;
  std::map<NodeId, Again> again;  // by the reader before which it is made
};

class Planner {
 public:
  Planner(const Graph& graph, const CallMemory& memory, int overlap)
      : graph_(graph), memory_(memory), alive_(memory.alive(overlap)) {
    for (const StoredValue& v : memory.values()) {
      numbers_[v.value] = static_cast<int>(lives_.size());
      lives_.push_back({static_cast<int>(lives_.size()), {v.readers.begin(), v.readers.end()}, {}});
    }
  }

  void run(int64_t budget, Recomputation& done) {
    const auto fullest = [&] { return std::ranges::max_element(alive_); };
    done.bytes_before = alive_.empty() ? 0 : *fullest();
    while (!alive_.empty() && *fullest() > budget && drop_one(static_cast<NodeId>(fullest() - alive_.begin()), done)) {
    }
    done.bytes = alive_.empty() ? 0 : *fullest();
  }

  const Lives* lives(Value v) const {
    const auto found = numbers_.find(v);
    return found == numbers_.end() ? nullptr : &lives_[static_cast<size_t>(found->second)];
  }

 private:
  const StoredValue& value(int number) const { return memory_.values()[static_cast<size_t>(number)]; }

  // The last moment before `at`, or at it, in which the value is made or read.
  NodeId used_before(const Lives& l, NodeId at) const {
    const auto later = l.readers.upper_bound(at);
    return later == l.readers.begin() ? value(l.number).value.node : *std::prev(later);
  }
  bool alive(int number, NodeId at) const {
    const Lives& l = lives_[static_cast<size_t>(number)];
    if (value(number).value.node > at || l.readers.empty() || *l.readers.rbegin() < at) return false;
    // Between two uses it is gone if the later one makes it again.
    const auto next = l.readers.lower_bound(at);
    return *next == at || !l.again.contains(*next);
  }

  // nullopt: there is something it cannot be computed from at that moment.
  std::optional<Again> again(int number, NodeId at, int depth = 0) const {
    const Value v = value(number).value;
    const Node& node = graph_.node(v);
    Again a{.inside = {}, .given = {}, .reads = {}, .before = {}, .traffic = value(number).bytes};
    if (node.op->kernel == KernelKind::fused) {
      if (!slice(v, at, depth, a)) return std::nullopt;
    } else if (node.op->kernel == KernelKind::gemm || node.op->kernel == KernelKind::convolution) {
      std::vector<TensorType> types;
      for (const Value operand : node.operands) {
        if (operand && !take(operand, at, depth, a)) return std::nullopt;
        types.push_back(operand ? graph_.type(operand) : TensorType{});
      }
      a.flops += node.op->cost ? node.op->cost(node, types) : 0;
    } else {
      return std::nullopt;
    }
    return a;
  }

  // Reads operand `v` of a call that stands before `at`.
  bool take(Value v, NodeId at, int depth, Again& a) const {
    const Value from = memory_.storage(v);
    a.traffic += graph_.type(v).byte_count();
    if (graph_.node(from).op->kernel == KernelKind::leaf) return true;
    if (is_arena(graph_.node(from))) return false;
    const auto found = numbers_.find(from);
    if (found == numbers_.end()) return from.node < at;  // the graph delivers it
    return take_value(found->second, at, depth, a);
  }

  bool take_value(int number, NodeId at, int depth, Again& a) const {
    constexpr int kDeepest = 3;
    a.reads.push_back(number);
    const auto known = std::ranges::find(a.before, number, &Earlier::number);
    if (alive(number, at) || known != a.before.end()) return true;
    if (depth == kDeepest || value(number).arena >= 0) return false;
    std::optional<Again> first = again(number, at, depth + 1);
    if (!first) return false;
    if (!made_later(number, at)) a.traffic += first->traffic, a.flops += first->flops;
    a.before.emplace_back(number, *std::move(first));
    return true;
  }
  // The reader before which a value that is gone now is made again as it is; absent: it is gone for good.
  std::optional<NodeId> made_later(int number, NodeId at) const {
    const Lives& l = lives_[static_cast<size_t>(number)];
    const auto next = l.readers.lower_bound(at);
    return next != l.readers.end() && l.again.contains(*next) ? std::optional(*next) : std::nullopt;
  }

  // The part of a region that output `v` needs, cut where other outputs are there.
  bool slice(Value v, NodeId at, int depth, Again& a) const {
    const Graph& body = graph_.node(v).attributes.region("body");
    std::map<Value, int32_t> outputs;
    for (size_t r = 0; r < body.outputs().size(); ++r)
      outputs.emplace(body.outputs()[r].value, static_cast<int32_t>(r));
    a.inside.assign(body.nodes().size(), 0);
    std::vector<Value> stack{body.outputs()[static_cast<size_t>(v.result)].value};
    std::set<int32_t> given;
    std::set<NodeId> operands;
    const Value wanted = stack.front();
    while (!stack.empty()) {
      const Value at_hand = stack.back();
      stack.pop_back();
      if (const auto output = outputs.find(at_hand); output != outputs.end() && at_hand != wanted) {
        const auto number = numbers_.find(Value{v.node, output->second});
        if (number != numbers_.end() && alive(number->second, at)) {
          if (given.insert(output->second).second)
            a.reads.push_back(number->second), a.traffic += value(number->second).bytes;
          continue;
        }
      }
      if (std::exchange(a.inside[static_cast<size_t>(at_hand.node)], 1)) continue;
      const Node& node = body.node(at_hand);
      // A sum in another kernel may add in another order.
      if (writes_in_place(node) || node.op->kernel == KernelKind::reduction) return false;
      if (is_leaf(*node.op))
        operands.insert(at_hand.node);
      else
        for (const Value operand : node.operands)
          if (operand) stack.push_back(operand);
    }
    a.given.assign(given.begin(), given.end());
    size_t operand = 0;
    for (NodeId id = 0; id < body.size(); ++id) {
      if (!is_leaf(*body.node(id).op)) continue;
      if (operands.contains(id) && !take(graph_.node(v).operands[operand], at, depth, a)) return false;
      ++operand;
    }
    return true;
  }
  struct Choice {
    int number = -1;
    NodeId from = 0, to = 0;  // idle after `from` and before `to`
    Again again;
  };

  // Of the values that lie idle at `fullest` drops the cheapest a byte; false: there is none.
  bool drop_one(NodeId fullest, Recomputation& done) {
    Choice best;
    double least = 0;
    for (const Lives& l : lives_) {
      const Value v = value(l.number).value;
      if (v.node >= fullest || value(l.number).bytes == 0 || value(l.number).arena >= 0 ||
          l.readers.contains(fullest) || !alive(l.number, fullest))
        continue;
      const NodeId from = used_before(l, fullest), to = *l.readers.upper_bound(fullest);
      std::optional<Again> a = again(l.number, to);
      if (!a) continue;
      const double price = a->microseconds() / static_cast<double>(value(l.number).bytes);
      if (most_beside(*a, to) >= alive_[static_cast<size_t>(fullest)]) continue;
      if (best.number < 0 || price < least) best = {l.number, from, to, *std::move(a)}, least = price;
    }
    if (best.number < 0) return false;
    for (NodeId id = best.from + 1; id < best.to; ++id) alive_[static_cast<size_t>(id)] -= value(best.number).bytes;
    ++done.values, done.more_traffic += best.again.traffic, done.more_flops += best.again.flops;
    make(best.number, std::move(best.again), best.to);
    return true;
  }

  // Bytes alive while a value's calls run again before `at`.
  int64_t most_beside(const Again& a, NodeId at) const {
    int64_t most = alive_[static_cast<size_t>(at)];
    for (const auto& [number, first] : a.before) {
      for (NodeId id = at; id <= made_later(number, at).value_or(at); ++id)
        most = std::max(most, alive_[static_cast<size_t>(id)] + value(number).bytes);
      most += most_beside(first, at) - alive_[static_cast<size_t>(at)] + value(number).bytes;
    }
    return most;
  }

  void make(int number, Again a, NodeId at) {
    for (auto& [earlier, first] : a.before) {
      const NodeId until = made_later(earlier, at).value_or(at + 1);
      for (NodeId id = at; id < until; ++id) alive_[static_cast<size_t>(id)] += value(earlier).bytes;
      Lives& l = lives_[static_cast<size_t>(earlier)];
      l.again.erase(until);
      l.readers.insert(at);
      make(earlier, std::move(first), at);
    }
    a.before.clear();
    for (const int read : a.reads) lives_[static_cast<size_t>(read)].readers.insert(at);
    lives_[static_cast<size_t>(number)].again.insert_or_assign(at, std::move(a));
  }

  const Graph& graph_;
  const CallMemory& memory_;
  std::vector<int64_t> alive_;
  std::vector<Lives> lives_;
  std::map<Value, int> numbers_;
};

class Rebuild {
 public:
  Rebuild(const Graph& graph, const Planner& plan) : graph_(graph), plan_(plan), builder_(graph.name()), map_(graph) {}

  Graph run() && {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Node& node = graph_.node(id);
      if (is_view(graph_, node)) {
        copy(id, operands_of(node));  // for those that read the first life
        continue;
      }
      std::vector<Value> operands;
      for (const Value v : node.operands) operands.push_back(at(v, id));
      copy(id, operands);
      if (node.op->kernel != KernelKind::leaf) last_call_ = map_({id, 0});
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
    const Graph& body = node.attributes.region("body");
    Builder region("body");
    ValueMap inside(body);
    std::vector<Value> operands;
    const auto input = [&](Value operand) {
      const Value in = region.input(std::to_string(operands.size()), graph_.type(operand));
      operands.push_back(read(operand));
      return in;
    };
    size_t number = 0;
    for (NodeId id = 0; id < body.size(); ++id)
      if (is_leaf(*body.node(id).op)) {
        const Value operand = node.operands[number++];
        if (again.inside[static_cast<size_t>(id)]) inside.at({id, 0}) = input(operand);
      }
    for (const int32_t result : again.given)
      inside.at(body.outputs()[static_cast<size_t>(result)].value) = input({v.node, result});
    for (NodeId id = 0; id < body.size(); ++id) {
      if (!again.inside[static_cast<size_t>(id)] || is_leaf(*body.node(id).op)) continue;
      std::vector<Value> arguments;
      for (const Value operand : body.node(id).operands) arguments.push_back(inside(operand));
      const NodeId copied = region.copy(body, body.node(id), arguments);
      for (int32_t r = 0; r < static_cast<int32_t>(body.node(id).results.size()); ++r)
        if (!inside(Value{id, r})) inside.at({id, r}) = {copied, r};
    }
    region.output("0", inside(body.outputs()[static_cast<size_t>(v.result)].value));
    builder_.set_origin(node.origin);
    return builder_.fused(std::move(operands), std::move(region).finish())[0];
  }

  const Graph& graph_;
  const Planner& plan_;
  Builder builder_;
  ValueMap map_;
  std::map<std::pair<Value, NodeId>, Value> made_;
  Value last_call_;
};

}  // namespace

Graph recompute(const Graph& graph, int64_t budget, int overlap, Recomputation& done) {
  const CallMemory memory(graph);
  Planner planner(graph, memory, overlap);
  planner.run(budget, done);
  return done.values == 0 ? graph : Rebuild(graph, planner).run();
}

}  // namespace halfstep
