// Batch norms that an exporter folded into the layers before them: which they were, and how they come back.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "frontend/onnx/onnx_model.h"

namespace halfstep {

struct BatchNormOptions {
  // Names of the layers that get one; empty: those that took one in, as the file tells.
  std::vector<std::string> after = {};
  // nullopt: that of the batch norms the file still has, or PyTorch's 1e-5. It matters in training alone.
  std::optional<double> epsilon = std::nullopt;
};

// The epsilon that batch norms are given when they come back.
double assumed_epsilon(const OnnxModel& model, const BatchNormOptions& options);

// `model` with a batch norm behind those convolutions, transposed convolutions and Gemms, which give up their biases to
// it. Scale 1, mean 0, variance 1 - epsilon: inference is what it was. Names: "<layer>.bn" and its initializers
// ".scale", ".bias", ".mean", ".variance". Throws Error if there is no such layer, or a pattern matches none.
OnnxModel insert_batch_norms(OnnxModel model, const BatchNormOptions& options = {});

}  // namespace halfstep
