// A model that carries how it is trained as operators of ai.onnx.preview.training (frontend/onnx/training_operators.h).
#pragma once

#include <filesystem>

#include "frontend/export/export.h"
#include "frontend/onnx/training_operators.h"

namespace halfstep {

// Writes `original` as it is, beside it an algorithm of loss, Gradient and optimizer: its inputs are those of the model
// and "labels" or "targets"; rate, count and states are its initializers, "step.learning_rate", "step.count",
// "momentum/NAME"; names that are taken get a '_' behind them. `rank` is that of the output. Throws Error where the
// model's operator set has no such loss.
void export_training_operators(OnnxModel original, const TrainingOperators& training, size_t rank,
                               const std::filesystem::path& path, const ExportOptions& options = {});

}  // namespace halfstep
