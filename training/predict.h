// A model's outputs for a data set.
#pragma once

#include "training/trainer.h"

namespace halfstep {

// Runs program "evaluate" over all samples in order; the loss's labels need not be there and are not read. The model's
// outputs under their names, [samples, ...], those of low types as f32. Error where the step was compiled without them
// or one has no row for each sample. nullopt: a signal came.
std::optional<FileTensors> predict(Executor& executor, Dataset dataset, const EvaluateOptions& options);

}  // namespace halfstep
