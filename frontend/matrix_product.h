// The matrix product of MatMul and the operators that hold one.
#pragma once

#include "frontend/node_context.h"

namespace halfstep {

// x y as numpy.matmul: leading axes broadcast, a vector is a row or a column. Gives y's parameter its fresh rule.
Value matrix_product(NodeContext& c, Value x, Value y);

}  // namespace halfstep
