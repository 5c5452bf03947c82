// Learning rates as pure functions of the step, a row for each schedule.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
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
  int64_t decay_steps = 0;            // where `final_rate` is reached; 0: after all epochs
  std::vector<int64_t> milestones{};  // epochs, ascending
  int64_t restart_epochs = 1, restart_factor = 1;
  double power = 1;
  double rise_fraction = 0.3, rise_factor = 25, fall_factor = 1e4;
  enum Phases : uint8_t { two, three } phases = two;
  // From a step on, up to the next: of a file.
  std::vector<std::pair<int64_t, double>> points{};
  // What epochs have made of the full rate: of plateau.
  std::optional<double> reduced{};
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

// A rate a line, of the steps one after the other, or lines STEP,RATE, each of which holds until the next; lines
// after '#' and empty ones do not count. Error naming the line.
std::vector<std::pair<int64_t, double>> read_schedule_file(const std::filesystem::path& path);

// Throws Error listing the values that make no sense.
void check(const LearningRateSchedule& schedule);

// The rate of `step`, counted from 0.
double learning_rate(const LearningRateSchedule& schedule, const TrainingLength& length, int64_t step);

}  // namespace halfstep
