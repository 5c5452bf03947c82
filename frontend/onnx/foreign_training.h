// Whether files hold training beside the model. What training_operators.h does not read, their user should know.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "frontend/onnx/onnx_model.h"

namespace halfstep {

// Whether the file has a TrainingInfoProto; of the file, without reading more of it than that takes.
bool carries_training_step(const OnnxModel& model);
bool carries_training_step(const std::filesystem::path& model);

// What to give instead of `directory`, if it holds what onnxruntime-training's generate_artifacts writes.
std::optional<std::string> advice_on_artefacts(const std::filesystem::path& directory);

}  // namespace halfstep
