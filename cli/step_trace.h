// `train --trace`: a model's way into a training step and through it, layer by layer, in five stages: import, autocast,
// casts with loss scale and backward, compile, run.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compiler/inspect/inspection.h"
#include "data/data.h"
#include "runtime/executor.h"
#include "training/checkpoint_state.h"

namespace halfstep {

// What a layer computed on the first samples, in the types that it computes in.
struct LayerRun {
  std::string node, op;
  TensorType type = {};
  double least = 0, largest = 0, mean = 0;  // of its result; NaN where one is
  // Of what its backward hands on, multiplied by the loss scale: the largest magnitude (NaN where one is), and the
  // share that is 0.
  std::optional<double> gradient = {}, zeros = {};
  int64_t nans = 0, infinities = 0;  // in its result and what its backward hands on
};

struct StepTrace {
  Inspection inspection;
  struct Call {
    std::string call, computes;
  };
  std::string compiled;     // compile_summary; empty: the step came compiled
  std::vector<Call> calls;  // of program train
  double loss_scale = 1;    // of the first step
  int64_t samples = 0;      // that the run took
  std::vector<LayerRun> run;
  std::string run_unknown;  // why there are none
};

// Of a step that has not run yet, from the weights and the scale that the executor holds. Error where the model's file
// is gone. `compiled`: nullptr where the step came compiled.
StepTrace trace_step(const Recipe& recipe, Executor& executor, const CompileReport* compiled, const Dataset& dataset);
// For lines of `columns`; 0: of any length.
std::string step_trace_text(const StepTrace& trace, size_t columns);
nlohmann::json step_trace_json(const StepTrace& trace);

}  // namespace halfstep
