// Gives a product the bias that is added to it alone:
//
//   %1 = matmul(%x, %w) {transpose_b=1} : f16[8,3]
//   %2 = broadcast(%b) {shape=[8,3]} : f16[8,3]        ->    %3 = matmul(%x, %w, %b) {transpose_b=1} : f16[8,3]
//   %3 = add(%1, %2) : f16[8,3]
//
// The library adds it in f32, before the one rounding. The product is stored either way, so this never costs memory
// traffic, and where no kernel reads the sum it saves one. Runs last before fusion, where casts are in their places;
// what is compared and exported has the same roundings as the kernels. Leaves batches of products, f64 and constants.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph add_epilogues(const Graph& graph);

}  // namespace halfstep
