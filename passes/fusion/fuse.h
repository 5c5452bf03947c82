// Groups everything but library calls into regions, each of which becomes one kernel.
//
//   %3 = add(%1, %2)    %4 = relu(%3)          ->   %3 = fused(%1, %2) {body=graph { add, relu }}
//
// Runs last, on expanded and simplified graphs: only leaves, primitive ops, contractions and views are left then.
// Values that a contraction, an output or an update reads are stored; a value with several readers is stored only if
// computing it again would read more than storing saves. A region is pointwise, a row reduction or a column reduction
// with what can be computed in the same pass (ir/reduction_split.h). Reshapes and dense slices of stored values stay as
// views; the flat concat of an arena stays, since its operands are written in place. A concat of many operands becomes
// one of stored groups.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace halfstep {

Graph fuse(const Graph& graph);

// The same for reports: the calls that fuse would make, in terms of the nodes that they compute.
struct FusedCall {
  std::vector<NodeId> nodes;  // of a kernel all that it computes, in order; of a library call the one
  std::vector<Value> reads;   // from memory, views as such
  std::vector<Value> writes;
};
struct FusedCalls {
  Graph graph;  // the nodes', which may differ from the one given
  std::vector<FusedCall> calls;
};
FusedCalls fused_calls(const Graph& graph);

}  // namespace halfstep
