// Which nodes of a forward graph may compute in either type, and the types that move the fewest bytes.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "ir/graph.h"
#include "passes/precision/cheapest_casts.h"
#include "passes/precision/precision_needs.h"

namespace halfstep {

// What autocast knows beyond the classes.
struct ForwardTypes {
  const Graph& graph;
  const std::vector<PrecisionClass>& classes;
  const PrecisionNeeds& needs;
  const std::vector<std::vector<NodeId>>& users;
  std::function<bool(NodeId)> takes_low;  // whether the readers of a node that computes in f32 inside want the low type
  std::function<bool(NodeId)> is_pinned;  // whether a rule is about one of its slots
};

// The casts between strong values, 6 bytes an element, and 4 bytes for each element that a free node which follows low
// ones writes and a reader reads in f32. Free are nodes that follow their operands: one that would be low may be f32
// instead; one that would be f32 may be low only where rounding before it is rounding behind it (movements), and never
// before what computes in f32 inside (a softmax, a norm, a sum). `prefers_low` is what following gives.
CastProblem cast_problem(const ForwardTypes& forward);

}  // namespace halfstep
