// What files hold of other trainers' training: none of it is read, and their user should know.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "frontend/onnx/onnx_model.h"

namespace halfstep {

// Whether the file has a TrainingInfoProto.
bool carries_training_step(const OnnxModel& model);

// What to give instead of `directory`, if it holds what onnxruntime-training's generate_artifacts writes.
std::optional<std::string> advice_on_artefacts(const std::filesystem::path& directory);

}  // namespace halfstep
