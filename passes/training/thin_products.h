// Writes small products of few columns, or of few terms, as reductions:
//
//   %y = matmul(%x, %w, %b) {transpose_b=1} : f16[128,10]      x: f16[128,512], w: f16[10,512]
// becomes
//   %s = reduce_sum(%x * %w) {axes=[2]} : f32[128,10,1]         over f32[128,10,512]
//   %y = cast(%s + %b) : f16[128,10]
//
// As the logits of a few classes and the cotangent of what they are made of: they give the matrix units nothing to do,
// rows of ten elements suit no library, and what reads them becomes a part of the kernel. The sum is in f32 and rounded
// once, as a product is. Runs after add_epilogues, which gives products their biases, and before simplify. Leaves
// products of few rows, as the gradient of those weights, for which nothing waits but the update, batches of products,
// f64, both operands transposed, and more than kMostProducts products alone.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// What runs thin products: calls of the target's library, or sums in kernels.
enum class ThinProducts : uint8_t { calls, sums };

Graph thin_products(const Graph& graph);

}  // namespace halfstep
