#include "training/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace halfstep {
namespace {

using Schedule = LearningRateSchedule;
using Length = TrainingLength;

// Of the way from the warm-up's end to the last rate, in [0, 1].
double decay_progress(const Schedule& s, const Length& length, int64_t step) {
  const int64_t end = s.decay_steps > 0 ? s.decay_steps : length.steps_per_epoch * length.epochs;
  const int64_t steps = std::max<int64_t>(1, end - s.warmup_steps);
  return std::min(1.0, static_cast<double>(step - s.warmup_steps) / static_cast<double>(steps));
}

double constant(const Schedule& s, const Length&, int64_t) { return s.learning_rate; }

double stepped(const Schedule& s, const Length& length, int64_t step) {
  return s.learning_rate * std::pow(s.gamma, static_cast<double>(step / length.steps_per_epoch / s.step_epochs));
}

double linear(const Schedule& s, const Length& length, int64_t step) {
  return s.learning_rate + (s.final_rate - s.learning_rate) * decay_progress(s, length, step);
}

double cosine(const Schedule& s, const Length& length, int64_t step) {
  const double turn = std::numbers::pi * decay_progress(s, length, step);
  return s.final_rate + (s.learning_rate - s.final_rate) * 0.5 * (1 + std::cos(turn));
}

const std::vector<ScheduleRow> kRows{
    {"constant", "the full rate throughout", {}, constant},
    {"step", "times `gamma` after every `step_epochs` epochs", {"gamma", "step_epochs"}, stepped},
    {"linear",
     "in equal parts from the full rate at the end of the warm-up to `final_rate` after the last step, or at step "
     "`decay_steps`",
     {"final_rate", "decay_steps"},
     linear},
    {"cosine", "as linear, along half a cosine", {"final_rate", "decay_steps"}, cosine},
};

}  // namespace

bool ScheduleRow::reads(std::string_view key) const { return std::ranges::find(keys, key) != keys.end(); }

std::span<const ScheduleRow> learning_rate_schedules() { return kRows; }

const ScheduleRow* find_schedule(std::string_view name) {
  const auto found = std::ranges::find(kRows, name, &ScheduleRow::name);
  return found == kRows.end() ? nullptr : &*found;
}

void check(const LearningRateSchedule& schedule) {
  const ScheduleRow* row = find_schedule(schedule.kind);
  require(row != nullptr, "a schedule is of the table");
  Problems problems;
  const auto non_negative = [&](const char* what, double value) {
    if (!(value >= 0) || std::isinf(value))
      problems.add(std::string(what) + ": " + std::to_string(value) + ", expected a finite number of at least 0");
  };
  non_negative("learning rate", schedule.learning_rate);
  non_negative("warm-up steps", static_cast<double>(schedule.warmup_steps));
  if (row->reads("gamma")) non_negative("learning rate step: gamma", schedule.gamma);
  if (row->reads("step_epochs") && schedule.step_epochs < 1)
    problems.add("learning rate step: every " + std::to_string(schedule.step_epochs) + " epochs, expected at least 1");
  if (row->reads("final_rate")) non_negative("final learning rate", schedule.final_rate);
  if (row->reads("decay_steps"))
    non_negative("steps of the learning rate's decay", static_cast<double>(schedule.decay_steps));
  problems.throw_if_any();
}

double learning_rate(const LearningRateSchedule& schedule, const TrainingLength& length, int64_t step) {
  if (step < schedule.warmup_steps)
    return schedule.learning_rate * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  return find_schedule(schedule.kind)->rate(schedule, length, step);
}

}  // namespace halfstep
