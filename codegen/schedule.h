// The schedule of a region: its form (pointwise, rows, columns), how many kernels it becomes, and over which variables.
//
//   pointwise: no reductions; outputs of one element count.
//   rows:      [kept, reduced]; any number of phases; outputs of full or kept shape; a row stays on one processor.
//   columns:   [outer, reduced, inner]; one phase.
// One-phase reductions with little to run in parallel are split: a first kernel reduces fixed chunks into partials, a
// second combines them in order and computes the epilogue. Chunks depend on shapes only, so that results do not depend
// on the number of threads.
#pragma once

#include <vector>

#include "codegen/kernel.h"
#include "codegen/target.h"

namespace halfstep {

struct Schedule {
  std::vector<Kernel> kernels;       // in the order of execution
  std::vector<TensorType> partials;  // scratch between them
};

// Throws InternalError naming the region if it has none of the forms.
Schedule schedule(const Graph& region, DeviceKind device);

}  // namespace halfstep
