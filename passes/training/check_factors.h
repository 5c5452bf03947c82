// Looks for overflows of large gradients in what they are products of:
//
//   %g = matmul(%dy, %x) {transpose_a=1, result="f32"}          %dy: f16[128,512], %x: f16[128,784]
//   %b = reduce_sum(cast(%dy)) {axes=[0]}
//   %all = concat(reshape(%g), reshape(%b))
//   %bad = reduce_max(select(is_finite(%all), 0, 1))
// becomes
//   %of_x = reduce_max(select(is_finite(%x), 0, inf)) {axes=[1]}
//   %all = concat(reshape(%b), reshape(%of_x))
//   %bad = reduce_max(select(is_finite(%all), 0, 1))
//
// The same value, to the bit: an infinity or NaN in a factor is in each sum that it is a term of, and sums of products
// of finite f16 values stay far below what f32 holds, as do sums of such values. The factors of the forward pass are
// there long before, so that no update of a small step waits for a pass over all gradients. Runs after thin_products,
// which takes some of these products. Leaves gradients alone that are no larger than their factors, or other than such
// products, and arenas in which too much else would be left to look through.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// Where overflows of gradients are looked for.
enum class OverflowCheck : uint8_t { gradients, factors };

Graph check_factors(const Graph& graph);

}  // namespace halfstep
