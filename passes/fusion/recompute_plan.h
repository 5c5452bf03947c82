// Which values of a step are computed again, when, and from what: the decisions of recompute.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "passes/fusion/call_memory.h"
#include "passes/fusion/recompute.h"

namespace halfstep {

inline constexpr NodeId kNone = -1;

struct Earlier;

// A call again, for one of its results; or that result beside those of a later kernel, its host.
struct Again {
  NodeId host = kNone;          // reads what is large of the sources, over the same domain
  NodeId waits = kNone;         // a reader in front of the host, which runs behind it now
  std::vector<char> inside;     // fused: by node of the body, whether it is computed
  std::vector<int32_t> given;   // fused: other results of the call that are read instead of computed
  std::vector<int> reads;       // numbers of values
  std::vector<Earlier> before;  // values that are no longer there, each computed again first
  int64_t traffic = 0;
  double flops = 0;
  double microseconds() const;
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

// Built over the calls of one graph, which outlives it.
class RecomputePlan {
 public:
  RecomputePlan(const Graph& graph, const CallMemory& memory, int overlap);
  // Until no moment needs more than `budget` bytes, or nothing helps.
  void run(int64_t budget, Recomputation& done);
  // The calls that run behind `host`, in order.
  std::vector<NodeId> behind(NodeId host) const;
  bool waits(NodeId call) const { return waiting_.contains(call); }
  const std::vector<int>& hosted_by(NodeId call) const;
  const Lives& lives(int number) const { return lives_[static_cast<size_t>(number)]; }
  Value value_of(int number) const { return value(number).value; }
  const Lives* lives(Value v) const;

 private:
  const StoredValue& value(int number) const { return memory_.values()[static_cast<size_t>(number)]; }
  // The last moment before `at`, or at it, in which the value is made or read.
  NodeId used_before(const Lives& l, NodeId at) const;
  bool alive(int number, NodeId at) const;
  // Whether what is made for `at` may read it: it is alive, and not made by the kernel at `at` itself.
  bool is_there(int number, NodeId at) const;
  // nullopt: there is something it cannot be computed from at that moment.
  std::optional<Again> again(int number, NodeId at, int depth = 0) const;
  // Reads operand `v` of a call that stands before `at`.
  bool take(Value v, NodeId at, int depth, Again& a) const;
  bool take_value(int number, NodeId at, int depth, Again& a) const;
  // The reader before which a value that is gone now is made again as it is; absent: it is gone for good.
  std::optional<NodeId> made_later(int number, NodeId at) const;
  // The part of a region that output `v` needs, cut where other outputs are there.
  bool slice(Value v, NodeId at, int depth, Again& a) const;
  bool reads(const Node& call, Value stored) const;
  // The value as one more result of kernel `host`; `to`: the reader it is for, in front of the host or behind it.
  std::optional<Again> beside(int number, NodeId host, NodeId to) const;
  // Whether reader `to` of the value, a library call, may run behind `host`: nothing in between needs it.
  bool can_wait(int number, NodeId to, NodeId host) const;
  // Of the kernels near `to` and behind `fullest` that read what the value is computed from, the cheapest host.
  std::optional<Again> beside_any(int number, NodeId fullest, NodeId to) const;
  struct Choice {
    int number = -1;
    NodeId from = 0, to = 0;  // idle after `from` and before `to`
    Again again;
  };
  // Of the values that lie idle at `fullest` drops the cheapest a byte; false: there is none.
  bool drop_one(NodeId fullest, Recomputation& done);
  // Bytes alive at most while what a reader at `to` reads waits for the host.
  int64_t most_waiting(int number, const Again& a, NodeId to) const;
  // The value becomes a result of its host; the reader that waits, a call behind it.
  void host(Choice& choice);
  // Bytes alive while a value's calls run again before `at`.
  int64_t most_beside(const Again& a, NodeId at) const;
  void make(int number, Again a, NodeId at);

  const Graph& graph_;
  const CallMemory& memory_;
  std::vector<int64_t> alive_;
  std::vector<Lives> lives_;
  std::map<Value, int> numbers_;
  std::map<NodeId, std::vector<int>> hosted_;     // by host
  std::map<NodeId, std::vector<NodeId>> behind_;  // the same: the readers that wait for it
  std::set<NodeId> waiting_;
};

}  // namespace halfstep
