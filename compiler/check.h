// Whether a model is ready to train as a recipe says: what the import and the passes up to the backward refuse.
#pragma once

#include "compiler/compile.h"
#include "frontend/diagnose/diagnostics.h"

namespace halfstep {

// Throws Error only if the file is no ONNX model at all.
Diagnostics check_recipe(const Recipe& recipe, const CompileOptions& options = {});

}  // namespace halfstep
