// One spelling for what exporters spell differently, so that the rules after it have one to know, and less is moved:
//
//   %1 = transpose(%w) {permutation=[1,0]}              %w, stored [out, in]
//   %2 = matmul(%x, %1)                           ->    %2 = matmul(%x, %w) {transpose_b=1}
//   %3 = add(%b, reshape(%2))                           %3 = reshape(add(%2, %b))
//
// Besides what simplify does: weights of linear layers are stored [out, in]; a bias is added to the matrix product
// itself; constants and parameters are the second operand; 1 / x is a reciprocal; equal elements are one element,
// repeated; pieces are cut out, and axes split, before axes are permuted, and axes merged after; rows of a matrix
// product stand in the order of the value they come from; what a reduction gives keeps its axes of size 1 through the
// arithmetic on it. Runs first, on the graph as imported. Changes no value.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph canonicalise(const Graph& graph);

}  // namespace halfstep
