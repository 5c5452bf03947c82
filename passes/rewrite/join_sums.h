// Turns a sum of like terms into one operation over the terms' operands side by side:
//
//   %a = pad(%x) {low=[0,0], high=[2,0]}
//   %b = pad(%y) {low=[2,0], high=[0,0]}        %s = concat(%x, %y) {axis=0}
//   %s = add(%a, %b)                        ->
//   %w = x1^T y1 + ... + x4^T y4                %w = concat(x1, ..., x4)^T concat(y1, ..., y4)
//
// These are the gradients of a value read in slices and of a weight used often, as an unrolled layer's. Along the first
// axis the pieces are computed in place in a flat concat; where they stand side by side already they are sliced. Runs
// after expand_composites and before simplify takes the casts of the products away. Leaves sums of fewer products, and
// pads that overlap.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph join_sums(const Graph& graph);

}  // namespace halfstep
