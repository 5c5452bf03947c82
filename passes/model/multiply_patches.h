// Convolutions whose windows tile their operand, as the patches of a vision transformer do, become one product:
//
//   %1 = convolution(%x, %w) {strides=[16,16]}         %1 = reshape(%x) : [32,14,16,14,16,3]
//        : [32,224,224,3], [768,16,16,3]         ->    %2 = transpose(%1) {permutation=[0,1,3,2,4,5]}
//                                                      %3 = matmul(reshape(%2), reshape(%w)) {transpose_b=1}
//
// A product runs at several times the speed of a convolution of three channels, as do its gradients. Runs after
// autocast, so that reports speak of the convolution, and before differentiate. Leaves windows of one element alone,
// which are products to the library too, and rows that do not begin at multiples of `alignment` bytes.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph multiply_patches(const Graph& graph, int64_t alignment);

}  // namespace halfstep
