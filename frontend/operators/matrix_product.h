// The contractions that operators hold beside others: products, convolutions, with what may follow in one node.
#pragma once

#include "frontend/import/node_context.h"

namespace halfstep {

// x y as numpy.matmul: leading axes broadcast, a vector is a row or a column. Gives y's parameter its fresh rule.
Value matrix_product(NodeContext& c, Value x, Value y);

// Operands and attributes as Conv and Gemm have them.
Value convolution(NodeContext& c);
Value general_product(NodeContext& c);

}  // namespace halfstep
