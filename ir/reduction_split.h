// How a reduction sees its operand: [outer, reduced, inner]. Fusion and kernel emission agree on it here.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

struct ReductionSplit {
  int64_t outer = 1, reduced = 1, inner = 1;
  friend bool operator==(const ReductionSplit&, const ReductionSplit&) = default;
};

// row: each of `outer` rows is reduced by one thread group, which may read the row again (softmax).
// column: partial results over chunks of the reduced axis, then their combination; one pass over the operand. Also for
// few, very long rows.
// general: axes that are not adjacent; the row scheme with strided accesses.
enum class ReductionScheme : uint8_t { row, column, general };

// The operand's axes as runs of kept and of reduced ones, without those of size 1. Reductions whose runs are equal walk
// the same rows and columns.
using ReductionRuns = std::vector<std::pair<int64_t, bool>>;  // elements, whether they are reduced
ReductionRuns reduction_runs(const Shape& operand, const Ints& axes);

// nullopt: the axes are not adjacent once axes of size 1 are dropped.
std::optional<ReductionSplit> split_reduction(const Shape& operand, const Ints& axes);
ReductionScheme reduction_scheme(const ReductionSplit& split);

}  // namespace halfstep
