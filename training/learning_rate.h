// Learning rates as pure functions of the step, a row for each schedule.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace halfstep {

struct LearningRateSchedule {
  std::string kind = "constant";  // of a row of learning_rate_schedules()
  double learning_rate = 0.01;
  // Every kind: rates rise in equal parts over the first steps; step warmup_steps - 1 has the full rate.
  int64_t warmup_steps = 0;
  // Of the kinds whose row says so.
  int64_t step_epochs = 1;
  double gamma = 0.1;
  double final_rate = 0;
  int64_t decay_steps = 0;  // where `final_rate` is reached; 0: after all epochs
};

struct TrainingLength {
  int64_t steps_per_epoch = 1;
  int64_t epochs = 1;
};

struct ScheduleRow {
  std::string_view name;
  std::string_view meaning;
  std::vector<std::string_view> keys;  // of the recipe, that it reads beside learning_rate and warmup_steps
  // Behind the warm-up.
  double (*rate)(const LearningRateSchedule& schedule, const TrainingLength& length, int64_t step);

  bool reads(std::string_view key) const;
};

std::span<const ScheduleRow> learning_rate_schedules();
const ScheduleRow* find_schedule(std::string_view name);  // nullptr: there is none

// Throws Error listing the values that make no sense.
void check(const LearningRateSchedule& schedule);

// The rate of `step`, counted from 0.
double learning_rate(const LearningRateSchedule& schedule, const TrainingLength& length, int64_t step);

}  // namespace halfstep
