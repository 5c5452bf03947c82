// Learning rates as pure functions of the step.
#pragma once

#include <cstdint>

namespace halfstep {

struct LearningRateSchedule {
  enum Kind : uint8_t {
    constant,
    step,    // times `gamma` after every `step_epochs` epochs
    linear,  // in equal parts from `learning_rate` at the end of the warm-up to `final_rate` after the last step
    cosine,  // the same along half a cosine
  } kind = constant;
  double learning_rate = 0.01;
  // Every kind: rates rise in equal parts over the first steps; step warmup_steps - 1 has the full rate.
  int64_t warmup_steps = 0;
  int64_t step_epochs = 1;
  double gamma = 0.1;
  double final_rate = 0;
  int64_t decay_steps = 0;  // linear, cosine: where `final_rate` is reached; 0: after all epochs
};

struct TrainingLength {
  int64_t steps_per_epoch = 1;
  int64_t epochs = 1;
};

// Throws Error listing the values that make no sense.
void check(const LearningRateSchedule& schedule);

// The rate of `step`, counted from 0.
double learning_rate(const LearningRateSchedule& schedule, const TrainingLength& length, int64_t step);

}  // namespace halfstep
