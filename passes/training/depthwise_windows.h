// Depthwise convolutions and their data gradients become windows, which fusion makes kernels of:
//
//   %y = convolution(%x, %w) {groups=96} : f16[8,56,56,96], f16[96,7,7,1]
// becomes
//   %f = transpose(reshape(%w)) {permutation=[1,2,0]} : f16[7,7,96]
//   %y = depthwise(%x, %f) {window=[7,7]}
//
// One product a channel gives the matrix units nothing to do, and the GPU's library runs large windows and strided
// gradients at a few percent of the memory's speed. So is a first layer over one image channel, with small windows: it
// is depthwise over the channel broadcast to one for each filter. Runs after expand_composites and before simplify,
// beside reduce_filter_gradients, which writes their filter gradients. Leaves other convolutions alone that have
// several filters a channel, windows of more than kMostTaps elements or a result of another type.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// What runs depthwise convolutions: calls of the target's library, or windows in kernels.
enum class DepthwiseForm : uint8_t { calls, windows };

// Whether a convolution or a gradient of one is depthwise: one filter a channel, of not too many elements.
bool is_depthwise(const Graph& graph, const Node& node);

Graph depthwise_windows(const Graph& graph);

}  // namespace halfstep
