// The phases of fuse, over one state: which values are stored (roots.cpp), which of them one kernel computes
// (merge.cpp), and the graph of the kernels (build.cpp).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/reduction_split.h"
#include "ir/views.h"
#include "passes/fusion/call_memory.h"
#include "passes/fusion/fuse.h"
#include "passes/fusion/kernel_order.h"

namespace halfstep {

// Operands of a concat that one kernel reads; a group of as many is stored.
inline constexpr size_t kMostJoined = 16;

class Fusion {
 public:
  explicit Fusion(const Graph& graph) : graph_(graph), users_(graph.users()), kernel_of_(graph.nodes().size(), -1) {
    choose_roots();
    make_kernels();
    find_order();
    merge_kernels();
  }

  Graph build();
  std::vector<FusedCall> calls() const;

 private:
  // One future kernel: the stored nodes ("roots") it computes, all over one domain.
  struct Kernel {
    std::vector<NodeId> roots;            // ascending
    std::optional<ReductionSplit> split;  // reductions: their common split
    ReductionScheme scheme = ReductionScheme::row;
    int64_t elements = 0;  // of the full domain
    bool alive = true;
    ReductionRuns runs = {};  // the reductions', which are all alike
  };

  static int64_t count(const Node& node) { return node.results[0].element_count(); }
  static bool is_reduction(const Node& node) { return node.op->kernel == KernelKind::reduction; }
  const Node& node(NodeId id) const { return graph_.node(id); }
  bool stored(NodeId id) const { return kernel_of_[static_cast<size_t>(id)] >= 0; }
  // Lives in memory whatever the fusion does: leaves, library results, arenas, larger constants.
  bool external(NodeId id) const {
    constexpr int64_t kInlineConstant = 16;
    const Node& n = node(id);
    if (n.op->leaf == Leaf::constant) return count(n) > kInlineConstant;
    return n.op->kernel == KernelKind::leaf || is_library(n) || is_arena(n);
  }
  // The node whose memory a chain of views looks at.
  NodeId storage(NodeId id) const {
    while (is_view(graph_, node(id))) id = node(id).operands[0].node;
    return id;
  }
  // A reader of `id` reads memory: it is stored, external, or a view of such.
  bool in_memory(NodeId id) const { return external(storage(id)) || stored(storage(id)); }

  Value read_operand(NodeId user, size_t i) const;
  bool is_zero_gap(NodeId arena, Value piece) const;
  void store(NodeId id);
  void deliver(Value v);
  void store_what_is_sliced();
  void choose_roots();
  struct InlineCost {
    double operations = 0;     // for each element
    int64_t source_bytes = 0;  // read from memory, small operands left out
  };
  InlineCost inline_cost(NodeId id) const;
  bool worth_storing(NodeId id) const;
  bool spreads(NodeId id, NodeId user) const;
  std::vector<NodeId> readers(NodeId id) const;
  void make_kernels();
  void merge_kernels();
  bool try_merge(int a, int b);
  bool legal(const Kernel& kernel) const;
  void find_order();
  void merge_neighbours(const std::vector<int>& kernels);
  std::set<NodeId> reads(const Kernel& kernel) const;
  std::vector<NodeId> body(const Kernel& kernel) const;
  std::vector<int> consumers(int kernel) const;
  void emit_kernel(Builder& builder, ValueMap& map, const Kernel& kernel) const;
  bool needed_outside(NodeId id, int32_t result, const Kernel& kernel) const;

  const Graph& graph_;
  std::vector<std::vector<NodeId>> users_;
  std::vector<int> kernel_of_;  // by node: its kernel, or -1 if it is not stored by one
  std::vector<Kernel> kernels_;
  KernelOrder order_{0};
  std::map<std::pair<int, int>, std::pair<size_t, size_t>> refused_;  // with how many roots
  std::set<Value> delivered_;                                         // what outputs and updates read, through views
};

}  // namespace halfstep
