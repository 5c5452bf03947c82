// Spatial operators exist channels-last only, so an imported ONNX graph is full of transposes around them. This pass
// carries each transpose along as a pending permutation until an op needs its operand in place, and most of them meet
// their inverse on the way:
//
//   %1 = convolution(transpose(%x), %w)            %1 = convolution(transpose(%x), %w)
//   %2 = relu(transpose(%1))               ->      %2 = relu(%1)
//   %3 = max_pool(transpose(%2))                   %3 = max_pool(%2)
//
// A parameter that is only read transposed is stored transposed (its `permutation`). Constants, per-channel values and
// axes of size 1 move for free. Knows ops by their kernel kind and by their attributes' axis roles. Runs on the forward
// graph: the backward inherits the layout. Outputs and state keep theirs; a dropout's mask moves with its operand.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph choose_layouts(const Graph& graph);

}  // namespace halfstep
