#include "training/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "base/error.h"

namespace halfstep {

void check(const LearningRateSchedule& schedule) {
  Problems problems;
  const auto non_negative = [&](const char* what, double value) {
    if (!(value >= 0) || std::isinf(value))
      problems.add(std::string(what) + ": " + std::to_string(value) + ", expected a finite number of at least 0");
  };
  non_negative("learning rate", schedule.learning_rate);
  non_negative("warm-up steps", static_cast<double>(schedule.warmup_steps));
  if (schedule.kind == LearningRateSchedule::step) {
    non_negative("learning rate step: gamma", schedule.gamma);
    if (schedule.step_epochs < 1)
      problems.add("learning rate step: every " + std::to_string(schedule.step_epochs) +
                   " epochs, expected at least 1");
  }
  if (schedule.kind == LearningRateSchedule::linear || schedule.kind == LearningRateSchedule::cosine) {
    non_negative("final learning rate", schedule.final_rate);
    non_negative("steps of the learning rate's decay", static_cast<double>(schedule.decay_steps));
  }
  problems.throw_if_any();
}

namespace {

// Of the way from the warm-up's end to the last rate, in [0, 1].
double decay_progress(const LearningRateSchedule& schedule, const TrainingLength& length, int64_t step) {
  const int64_t end = schedule.decay_steps > 0 ? schedule.decay_steps : length.steps_per_epoch * length.epochs;
  const int64_t steps = std::max<int64_t>(1, end - schedule.warmup_steps);
  return std::min(1.0, static_cast<double>(step - schedule.warmup_steps) / static_cast<double>(steps));
}

}  // namespace

double learning_rate(const LearningRateSchedule& schedule, const TrainingLength& length, int64_t step) {
  const double peak = schedule.learning_rate;
  if (step < schedule.warmup_steps)
    return peak * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  switch (schedule.kind) {
    case LearningRateSchedule::constant:
      return peak;
    case LearningRateSchedule::step:
      return peak * std::pow(schedule.gamma, static_cast<double>(step / length.steps_per_epoch / schedule.step_epochs));
    case LearningRateSchedule::linear:
      return peak + (schedule.final_rate - peak) * decay_progress(schedule, length, step);
    case LearningRateSchedule::cosine: {
      const double turn = std::numbers::pi * decay_progress(schedule, length, step);
      return schedule.final_rate + (peak - schedule.final_rate) * 0.5 * (1 + std::cos(turn));
    }
  }
  throw InternalError("unknown kind of schedule");
}

}  // namespace halfstep
