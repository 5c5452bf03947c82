// Kernels compute what they can from what they read anyway, instead of reading it too; what no kernel reads any more is
// not stored:
//
//   %z, %m = fused(%y, %mean) {...}                               %z = fused(%y, %mean) {...}
//   %d = fused(%y, %mean, %m, %dz) {                        ->    %d = fused(%y, %mean, %dz) {
//     ... select(%m, %dz, 0) ... }                                  ... select(0 < relu(%y - %mean), %dz, 0) ... }
//
// The mask of a relu behind a batch norm is such a value: the backward reads the norm's operand for its own sake.
// Values keep their bits, since a low value is rounded wherever it is read. Runs after fuse, which decides what kernels
// read. What a library, a view or the graph's outputs read stays stored. Leaves alone what windows or gathers read many
// times, sums, small values, and what takes more than kMostOperations.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph compute_in_readers(const Graph& graph);

}  // namespace halfstep
