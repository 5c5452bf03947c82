// Takes the maximum before what does not change which element is largest:
//
//   %1 = add(%0, broadcast(%bias)) : [128,28,28,32]       %1 = max_pool(%0) : [128,14,14,32]
//   %2 = relu(%1)                                    ->   %2 = add(%1, broadcast(%bias))
//   %3 = max_pool(%2) : [128,14,14,32]                    %3 = relu(%2)
//
// Rounding is monotone, so the values stay the same; where relu makes ties no gradient flows. The activation, its saved
// mask and the bias gradient then have the pooled size. Runs after autocast, whose report is in
// the model's order, and before differentiate. Leaves values with other readers, and models that read the positions of
// the maxima, alone.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph hoist_max_pool(const Graph& graph);

}  // namespace halfstep
