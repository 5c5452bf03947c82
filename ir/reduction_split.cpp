#include "ir/reduction_split.h"

#include <algorithm>

namespace halfstep {

ReductionRuns reduction_runs(const Shape& operand, const Ints& axes) {
  ReductionRuns runs;
  for (size_t i = 0; i < operand.size(); ++i) {
    const bool reduced = std::find(axes.begin(), axes.end(), static_cast<int64_t>(i)) != axes.end();
    if (operand[i] == 1) continue;
    if (!runs.empty() && runs.back().second == reduced)
      runs.back().first *= operand[i];
    else
      runs.push_back({operand[i], reduced});
  }
  return runs;
}

std::optional<ReductionSplit> split_reduction(const Shape& operand, const Ints& axes) {
  ReductionSplit split;
  int64_t* run = &split.outer;
  for (size_t i = 0; i < operand.size(); ++i) {
    const bool reduced = std::find(axes.begin(), axes.end(), static_cast<int64_t>(i)) != axes.end();
    if (operand[i] == 1) continue;
    if (reduced && run == &split.outer) run = &split.reduced;
    if (!reduced && run == &split.reduced) run = &split.inner;
    if (reduced && run == &split.inner) return std::nullopt;
    *run *= operand[i];
  }
  return split;
}

ReductionScheme reduction_scheme(const ReductionSplit& split) {
  constexpr int64_t kFewRows = 64, kLongRow = 8192;
  if (split.inner > 1) return ReductionScheme::column;
  return split.outer < kFewRows && split.reduced > kLongRow ? ReductionScheme::column : ReductionScheme::row;
}

}  // namespace halfstep
