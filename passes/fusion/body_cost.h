// What computing a value again costs, for the choice between storing it and computing it in each reader.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// Values that one kernel reads.
inline constexpr size_t kMostKernelOperands = 60;

// Operations for each element of the node's result, beyond moving data; what is slow counts as several.
double body_cost(const Node& node);

// A node that reads k elements for each result element, so that an inlined operand would be computed k times.
bool windows_overlap(const Node& node);

// A window that costs so much that it is computed once, by a kernel which has its registers for it: no reduction's.
bool is_large_window(const Node& node);

}  // namespace halfstep
