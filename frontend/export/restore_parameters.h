// Parameters that an exporter merged or removed because of their values, put back so that each is trained.
#pragma once

#include "frontend/onnx/onnx_model.h"

namespace halfstep {

// `model` with an initializer for each merged parameter (merged_parameters.h) and for each removed bias
// (removed_biases.h), which gets its weight's name with "bias" in place of "weight". It computes what it did. Throws
// Error if there is nothing to put back.
OnnxModel restore_parameters(OnnxModel model);

}  // namespace halfstep
