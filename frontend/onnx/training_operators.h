// A TrainingInfoProto of operators: a loss over an output of the model, Gradient, and an optimizer of
// ai.onnx.preview.training, whose results its update bindings take. Plain values of them, as a recipe has them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "frontend/onnx/onnx_model.h"

namespace halfstep {

inline constexpr const char* kTrainingDomain = "ai.onnx.preview.training";

struct TrainingOperators {
  std::string loss;    // softmax_cross_entropy, nll, from_graph, or one that is taken element by element
  std::string output;  // of the model, that the loss is of
  std::optional<int64_t> class_axis, ignore_index;
  // Numbers are written as short as their float allows: "0.9".
  std::map<std::string, std::vector<std::string>> loss_parameters;  // by key: class_weights, delta
  std::string optimizer;                                            // sgd, adagrad, onnx_adam
  std::map<std::string, std::string> parameters;
  std::string weight_decay = "0";
  std::optional<std::string> learning_rate;  // none: an input of the algorithm
  std::vector<std::string> trained;          // initializers of the model
  std::vector<std::string> no_decay;         // of `trained`
  friend bool operator==(const TrainingOperators&, const TrainingOperators&) = default;
};

// Of a model that carries a training step. Throws Error with everything in it that is not of this form, by the names of
// its nodes and values.
TrainingOperators read_training_operators(const OnnxModel& model);

}  // namespace halfstep
