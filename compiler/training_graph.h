// The recipe's training step as an ONNX model (frontend/export/training_graph.h).
#pragma once

#include <filesystem>

#include "base/tensor.h"
#include "compiler/recipe.h"
#include "ir/graph.h"

namespace halfstep {

struct TrainingGraph {
  Graph step, inference;  // the latter with the model's outputs alone
  NamedTensors initial;   // of its states, in the layout of the ONNX file
  std::vector<std::string> remarks;
};

// `weights` stand for those of the model's file where it has their names. Error where the recipe asks for what one
// graph does not hold: accumulation.
TrainingGraph training_graph(const Recipe& recipe, const FileTensors& weights = {});

}  // namespace halfstep
