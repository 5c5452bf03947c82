// The order in which the calls of a fused graph run: that of the graph, but a call that needs no more memory than it
// frees, or sums up what it reads, runs as soon as its operands are there.
//
//   %3 = matmul(%dy, %w)               %3 = matmul(%dy, %w)
//   %4 = fused(%3, ...)        ->      %5 = matmul(%dy, %x)         frees %dy and %x
//   %5 = matmul(%dy, %x)               %4 = fused(%3, ...)
//
// The gradients of weights therefore follow the cotangents that they read; the forward pass stays in front.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph order_calls(const Graph& graph);

}  // namespace halfstep
