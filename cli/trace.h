// One prediction, followed through the model layer by layer with each layer's precision.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "compiler/recipe.h"
#include "data/data.h"
#include "training/checkpoint_state.h"

namespace halfstep {

struct TraceRow {
  std::string node, op;
  TensorType type;
  double mean = 0, low = 0, high = 0;
};

struct Trace {
  std::vector<TraceRow> rows;
  std::optional<int64_t> label, predicted;  // absent where a sample has not one label of a class
  double probability = 0;                   // of the prediction
};

// Runs sample `sample` through the evaluation graph in the reference interpreter. nullopt: the model is too large to
// interpret in a moment (above ~10^8 operations), or its file is gone.
std::optional<Trace> trace_prediction(const Recipe& recipe, const ModelState& state, const Dataset& dataset,
                                      int64_t sample);
// For lines of `columns`; 0: of any length.
std::string trace_table(const Trace& trace, size_t columns);
nlohmann::json trace_json(const Trace& trace);

}  // namespace halfstep
