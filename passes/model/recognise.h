// Import undoes what export did: expressions that exporters and people write out become the operators they mean.
//
//   %1 = erf(%x * 0.70710677)                         %3 = gelu(%x)
//   %3 = %x * (%1 + 1) * 0.5                  ->
//   %5 = softmax(%q * %k^T * 0.125 + %mask)           %6, %7 = attention(%q, %k, %v, %mask) {scale=0.125}
//   %6 = matmul(%5, %v)
//
// An operator has a precision, a gradient and a kernel of its own; its parts have theirs, which cost more and lose
// more. Recognised: gelu and its tanh form, silu, mish, sigmoid and its logarithm, softplus, softmax, log_softmax,
// softmax cross-entropy, layer, RMS and batch norm (over the batch's statistics), attention. Hard swish and the like
// stay: fusion makes them one kernel anyway. Runs right after canonicalise, which leaves fewer spellings, and before
// all that looks at operators. Values stay the same up to rounding, and up to kConstantTolerance in constants that
// people write with four digits; a row of attention whose keys are all masked gives 0.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph recognise(const Graph& graph);

}  // namespace halfstep
