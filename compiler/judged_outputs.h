// What a run measures a step's outputs by: which they are, what they hold, and where their labels come from.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "passes/model/attach_loss.h"
#include "program/notes.h"

namespace halfstep {

// One for each loss that reads labels, in their order. Error as attach_loss's.
std::vector<JudgedOutput> judged_outputs(const Graph& model, const LossOptions& loss);
// The same of those whose loss fits, where nothing is trained.
std::vector<JudgedOutput> judged_where_known(const Graph& model, const LossOptions& loss);

// What `output` holds where the loss is of classes, of labels or of values: a softmax or a sigmoid at its end is seen.
OutputMeaning meaning_of_output(const Graph& model, Value output, OutputMeaning by_loss);

}  // namespace halfstep
