// Import undoes what export did: expressions that exporters and people write out become the operators they mean.
//
//   %1 = erf(%x * 0.70710677)                         %3 = gelu(%x)
//   %3 = %x * (%1 + 1) * 0.5                  ->
//   %5 = softmax(%q * %k^T * 0.125 + %mask)           %6, %7 = attention(%q, %k, %v, %mask) {scale=0.125}
//   %6 = matmul(%5, %v)
//
// An operator has a precision, a gradient and a kernel of its own; its parts have theirs, which cost more and lose
// more. Recognised: gelu and its tanh form, silu, sigmoid, softplus, softmax, log_softmax, softmax_cross_entropy,
// layer_norm, rms_norm, attention. Runs right after canonicalise, which leaves fewer spellings, and before everything
// that looks at operators. Values stay the same up to rounding, and up to kConstantTolerance in constants that people
// write with four digits; a row of attention whose keys are all masked gives 0. Leaves what it does not know alone.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph recognise(const Graph& graph);

}  // namespace halfstep
