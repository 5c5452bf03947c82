// The one door for models: a file parsed, and its weights where import, diagnosis and export look for them.
#pragma once

#include "frontend/onnx/onnx_model.h"

namespace halfstep {

// Weights that an exporter stored as Constant nodes are initializers (constant_weights.h). Throws Error as
// read_onnx_file and OnnxModel do.
OnnxModel read_model(const OnnxFile& file);
OnnxModel read_model(const std::filesystem::path& path);

}  // namespace halfstep
