// Writes the filter gradient of a convolution with few taps and channels as reductions:
//
//   %g = convolution_filter_grad(%x, %dy) {window=[3,3]} : f32[32,3,3,1]
// becomes, for each of the nine taps,
//   %t = reduce_sum(%dy * broadcast(slice(pad(%x)))) {axes=[0,1,2]}
//
// A first layer over one image channel gives the matrix units nothing to do; its gradient is one pass over dy, which
// fusion then computes on the fly instead of storing. Nor does a depthwise convolution, whose gradient is a sum over
// all channels for each tap where it is made of windows. Runs after expand_composites and before simplify. Leaves other
// grouped convolutions and those with more than kMostProducts taps times channels alone: their gradient is worth a
// library call.
#pragma once

#include "passes/training/depthwise_windows.h"

namespace halfstep {

Graph reduce_filter_gradients(const Graph& graph, DepthwiseForm depthwise);

}  // namespace halfstep
