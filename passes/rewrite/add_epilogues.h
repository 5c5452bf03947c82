// Gives a product what is added to it alone, a bias or the value that the product was computed from:
//
//   %1 = matmul(%h, %w) {transpose_b=1} : f16[8,3]
//   %2 = broadcast(%b) {shape=[8,3]} : f16[8,3]
//   %3 = add(%1, %2) : f16[8,3]                        ->    %4 = matmul(%h, %w, %b, %x) {transpose_b=1} : f16[8,3]
//   %4 = add(%x, %3) : f16[8,3]
//
// The library adds it in f32, before the one rounding. A bias costs no memory traffic: the product is stored either
// way. A residual sum saves a pass where it is stored, read more than once or by a library call: what it adds to is
// needed before the product and behind it. Runs last before fusion, where casts are in their places; what is compared
// and exported has the roundings of the kernels. Leaves batches of products, f64, constants, and sums that nobody
// stores.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// Whether a relu of such a product, which nothing else reads, is a part of it too.
enum class ProductRelu : uint8_t { apart, in_products };

Graph add_epilogues(const Graph& graph, ProductRelu relu);

}  // namespace halfstep
