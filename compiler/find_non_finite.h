// Why a training step overflowed, in the model's own names.
#pragma once

#include <string>

#include "compiler/recipe.h"
#include "training/checkpoint_state.h"
#include "training/trainer.h"

namespace halfstep {

// "weights are not finite any more: 'fc.weight' (3 of 512 values)", or "".
std::string non_finite_weights(const ModelState& state);

// Replays the step's samples through forward, loss and backward in the reference interpreter, a few at a time and then
// as whole batches, as far as that takes seconds, and says which node's value is the first that is not finite: "the
// first value that is not finite: an infinity in the output of 'fc1' (Gemm) for sample 4711, f16[8,128], ...", whether
// the range of its type is at fault, and then what keeps it. Weights that are not finite themselves are said instead.
// `state`: of the executor after the step.
std::string explain_non_finite(const Recipe& recipe, const ModelState& state, const Dataset& dataset,
                               const FeedOptions& feed, const HeadwayError::Step& step);

}  // namespace halfstep
