// Weights beside the range of the low type.
#pragma once

#include <vector>

#include "compiler/inspect/inspection.h"

namespace halfstep {

// Of every weight that `model` trains and can read, those with values beyond the range first. `unknown`: why others
// are not among them, "" if all are.
std::vector<WeightRange> weight_ranges(const ImportedModel& model, DType low, std::string& unknown);

}  // namespace halfstep
