// The schedule of a region: its form (pointwise, rows, columns), how many kernels it becomes, and over which variables.
//
//   pointwise: no reductions; outputs of one element count.
//   rows:      [kept, reduced]; any number of phases; outputs of full or kept shape; a row stays on one processor.
//   columns:   [outer, reduced, inner]; one phase.
//   scatter:   the output is a scatter (schedule_scatter.cpp).
// One-phase reductions with little to run in parallel are split: a first kernel reduces fixed chunks into partials, a
// second combines them in order and computes the epilogue. Chunks depend on shapes only, so that results do not depend
// on the number of threads.
#pragma once

#include <optional>
#include <vector>

#include "codegen/kernel/kernel.h"
#include "codegen/target/target.h"

namespace halfstep {

struct Schedule {
  std::vector<Kernel> kernels;       // in the order of execution
  std::vector<TensorType> partials;  // scratch between them
};

// Throws InternalError naming the region if it has none of the forms.
Schedule schedule(const Graph& region, DeviceKind device);
Schedule schedule_scatter(const Graph& region, DeviceKind device);
bool is_scatter(const Graph& region);
// The number of the operand whose value must lie in the output's memory when the first kernel runs: a scatter writes
// only the rows that it changes. nullopt: the kernels write every element.
std::optional<size_t> operand_written_over(const Graph& region);

}  // namespace halfstep
