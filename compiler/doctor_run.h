// Steps of a model whose tensors are read as it trains: what doctor lays side by side.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compiler/compile.h"
#include "passes/training/tap_values.h"
#include "training/run_setup.h"

namespace halfstep {

// Where the batches come from: the user's data in the trainer's order, or without data the same random batch each step.
struct Batches {
  const Data* data = nullptr;
  int64_t steps = 20;
};

// What one tensor held.
struct TensorReading {
  Tap tap;
  TapCounts first, all;        // of step 1, and of all steps together
  int first_exponent = 0;      // of all.exponents, with the loss scale divided out
  double largest = 0;          // in any step, finite, with the loss scale divided out
  double scale = 1;            // what the values of step 1 were multiplied by
  std::vector<float> samples;  // of step 1, with that divided out
};

struct RunOfSteps {
  std::vector<double> losses;       // of the steps that were applied
  std::vector<double> loss_scales;  // that these had
  int64_t skipped = 0;              // tries of steps that overflowed; each is made again on its batch
  // Why it ended before its steps: its loss, or at the least loss scale its gradients, are not finite; "": it did not.
  std::string stuck;
  std::vector<TensorReading> tensors;  // in the order in which they are computed
  // The first tensor that was not finite in a step that was skipped, and at which scale; -1: none.
  int32_t limits_scale = -1;
  double limited_scale = 0;

  const TensorReading* find(Tap::Kind kind, const std::string& node) const;
};

// A recipe compiled for measuring. Runs begin at the model's weights.
class MeasuredStep {
 public:
  // `taps` absent: runs read losses alone.
  MeasuredStep(const Recipe& recipe, DeviceKind device, std::optional<TapOptions> taps);
  // `disturbed`: weights are multiplied by 1 + u, |u| <= `by`, from this seed.
  struct Disturbance {
    uint64_t seed = 0;
    double by = 0;
  };
  RunOfSteps run(const Batches& batches, std::optional<Disturbance> disturbed = std::nullopt) const;

  const CompileReport& report() const { return report_; }
  const CompiledModel& model() const { return model_; }

 private:
  Recipe recipe_;
  CompiledModel model_;
  CompileReport report_;
  std::vector<Tap> taps_;
  std::optional<TapOptions> options_;
};

}  // namespace halfstep
