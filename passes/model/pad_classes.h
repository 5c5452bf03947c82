// Pads the classes of a loss to what products of the target want: matrices whose rows begin at multiples of `alignment`
// bytes.
//
//   %1 = matmul(%x, %w) : f16[256,50257]               %1 = pad(%w) : f16[768,50264]
//   %2 = cast(%1) {to=f32}                             %2 = matmul(%x, %1) : f16[256,50264]
//   %3 = softmax_cross_entropy(%2, %l)           ->    %3 = cast(%2) {to=f32}
//                                                      %4 = select(iota < 50257, %3, -inf)
//                                                      %5 = softmax_cross_entropy(%4, %l)
//
// A class of -inf adds 0 to the sum, is never the largest and has no gradient, so that the values stay the same. The
// logits, their gradient and the products of both backward ways then have aligned rows. What else reads the logits gets
// the slice without padding. Runs after autocast, whose types say how long an element is, and before differentiate.
// Leaves few classes alone, where a product costs nothing, and a smoothed loss, which sums all logits.
#pragma once

#include "ir/graph.h"

namespace halfstep {

class Builder;

Graph pad_classes(const Graph& graph, int64_t alignment);

// `v` with zeros behind it on `axis`, to `size`. Before a cast, so that the gradient is cast before it is cut, as the
// contraction that makes it can.
Value extended(Builder& builder, Value v, size_t axis, int64_t size);

}  // namespace halfstep
