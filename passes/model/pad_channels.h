// Gives images of three channels a fourth one of zeros where a kernel makes them anyway, as do layouts and casts:
//
//   %1 = cast(%0) {to=f16} : f16[256,224,224,3]        %1 = pad(cast(%0)) : f16[256,224,224,4]
//   %2 = cast(%w) {to=f16} : f16[64,7,7,3]       ->    %2 = cast(pad(%w)) : f16[64,7,7,4]
//   %3 = convolution(%1, %2)                           %3 = convolution(%1, %2)
//
// The GPU's engines for convolutions of low types read four channels, and are given a padded copy of three at each
// call. Runs after autocast, which gives the types, and before differentiate, so that the filter's gradient is one over
// four channels, cut. `alignment` as in pad_classes: none, nothing is padded. Leaves images alone that no kernel of
// ours makes, or that others read too.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph pad_channels(const Graph& graph, int64_t alignment);

}  // namespace halfstep
