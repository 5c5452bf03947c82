// Names of a model that would not be safe to print.
#pragma once

#include "base/error.h"
#include "frontend/onnx/model_proto.h"

namespace halfstep {

// A problem for each name of a node, value, operator or dimension that holds a control character: every report and
// error speaks in these names, and a newline in one would forge a line of it.
void check_names(const onnx::ModelProto& model, Problems& problems);

}  // namespace halfstep
