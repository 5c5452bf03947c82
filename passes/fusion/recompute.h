// Values that a later call needs are computed again there instead of kept, where memory is short.
//
//   %2 = fused(%1)            %2 = fused(%1)
//   ...                       ...
//   %8 = matmul(%7, %2)  ->   %8 = after(%1, %7)      %9 = fused(%8)      %10 = matmul(%7, %9)
//
// A kernel that reads all of this anyway, over as many elements, makes the value beside its own results; a library call
// that reads the value and stands in front of that kernel runs behind it, if nothing in between needs it:
//
//   %2 = fused(%1)                        %2 = fused(%1)
//   %8 = matmul(%2, %7)                   %9 = matmul(%7, %w)
//   %9 = matmul(%7, %w)             ->    %10, %11 = fused(%1, %9)
//   %10 = fused(%1, %9)                   %8 = matmul(%11, %7)
//
// The value with the fewest microseconds a byte goes first, as long as the fullest moment of the step is above the
// budget. What is computed again has the bits it had: library calls are the same, and of kernels what is pointwise or
// moves elements, from their own other results and from values that are there anyway. Sums are not computed again.
#pragma once

#include <cstdint>

#include "ir/graph.h"

namespace halfstep {

struct Recomputation {
  int64_t values = 0;        // computed again
  int64_t bytes_before = 0;  // alive in the fullest moment
  int64_t bytes = 0;
  int64_t more_traffic = 0;  // bytes that the added calls read and write
  double more_flops = 0;     // of the added library calls
};

// `graph` is fused and ordered. `budget`: bytes of values alive at once; where it cannot be reached, as near as can be.
// `overlap`: how many calls more what a library call reads or makes stays (codegen/lower).
Graph recompute(const Graph& graph, int64_t budget, int overlap, Recomputation& done);

}  // namespace halfstep
