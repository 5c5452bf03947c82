// ONNX model → Graph, of a model that is parsed already.
#pragma once

#include "frontend/import/import.h"
#include "frontend/onnx/onnx_model.h"

namespace halfstep {

// As of its file (import.h). The model stays as it is: it is copied only where names of its subgraphs meet, or where
// one output is read alone.
ImportedModel import_model(const OnnxModel& model, const ImportOptions& options = {});

}  // namespace halfstep
