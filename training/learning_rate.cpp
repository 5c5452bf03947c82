#include "training/learning_rate.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <numbers>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"

namespace halfstep {
namespace {

using Schedule = LearningRateSchedule;
using Length = TrainingLength;

// From the warm-up's end to the last rate; 1 at least.
int64_t decay_length(const Schedule& s, const Length& length) {
  const int64_t end = s.decay_steps > 0 ? s.decay_steps : length.steps_per_epoch * length.epochs;
  return std::max<int64_t>(1, end - s.warmup_steps);
}

// Of that way, in [0, 1].
double decay_progress(const Schedule& s, const Length& length, int64_t step) {
  return std::min(1.0, static_cast<double>(step - s.warmup_steps) / static_cast<double>(decay_length(s, length)));
}

// Along half a cosine, `share` of the way.
double along_cosine(double from, double to, double share) {
  return to + (from - to) * 0.5 * (1 + std::cos(std::numbers::pi * share));
}

double constant(const Schedule& s, const Length&, int64_t) { return s.learning_rate; }

double stepped(const Schedule& s, const Length& length, int64_t step) {
  const int64_t passed = step / length.steps_per_epoch / s.step_epochs;
  return s.learning_rate * std::pow(s.gamma, static_cast<double>(passed));
}

double linear(const Schedule& s, const Length& length, int64_t step) {
  return s.learning_rate + (s.final_rate - s.learning_rate) * decay_progress(s, length, step);
}

double cosine(const Schedule& s, const Length& length, int64_t step) {
  return along_cosine(s.learning_rate, s.final_rate, decay_progress(s, length, step));
}

// torch.optim.lr_scheduler.MultiStepLR
double multistep(const Schedule& s, const Length& length, int64_t step) {
  const int64_t epoch = step / length.steps_per_epoch;
  const auto passed = std::ranges::count_if(s.milestones, [&](int64_t milestone) { return milestone <= epoch; });
  return s.learning_rate * std::pow(s.gamma, static_cast<double>(passed));
}

// ExponentialLR
double exponential(const Schedule& s, const Length& length, int64_t step) {
  const int64_t epoch = step / length.steps_per_epoch;
  return s.learning_rate * std::pow(s.gamma, static_cast<double>(epoch));
}

// PolynomialLR, to a last rate of its own
double polynomial(const Schedule& s, const Length& length, int64_t step) {
  return s.final_rate + (s.learning_rate - s.final_rate) * std::pow(1 - decay_progress(s, length, step), s.power);
}

// CosineAnnealingWarmRestarts
double cosine_restarts(const Schedule& s, const Length& length, int64_t step) {
  int64_t at = step - s.warmup_steps;
  double period = static_cast<double>(s.restart_epochs) * static_cast<double>(length.steps_per_epoch);
  while (static_cast<double>(at) >= period) {
    if (s.restart_factor == 1) {
      at %= static_cast<int64_t>(period);
    } else {
      at -= static_cast<int64_t>(period);
      period *= static_cast<double>(s.restart_factor);
    }
  }
  return along_cosine(s.learning_rate, s.final_rate, static_cast<double>(at) / period);
}

// OneCycleLR without its momentum's cycle
double one_cycle(const Schedule& s, const Length& length, int64_t step) {
  const auto steps = static_cast<double>(decay_length(s, length));
  const double at = std::min(static_cast<double>(step - s.warmup_steps), steps - 1);
  const double first = s.learning_rate / s.rise_factor, last = first / s.fall_factor;
  const double top = s.rise_fraction * steps - 1, back = 2 * s.rise_fraction * steps - 2;
  const auto share = [&](double from, double to) { return to > from ? (at - from) / (to - from) : 1; };
  if (at <= top) return along_cosine(first, s.learning_rate, share(0, top));
  if (s.phases == Schedule::two) return along_cosine(s.learning_rate, last, share(std::max(top, 0.0), steps - 1));
  if (at <= back) return along_cosine(s.learning_rate, first, share(top, back));
  return along_cosine(first, last, share(std::max(back, 0.0), steps - 1));
}

// As transformers has it: of a warm-up of its length, or of 10,000 steps.
double inverse_sqrt(const Schedule& s, const Length&, int64_t step) {
  constexpr int64_t kUsual = 10000;
  const int64_t scale = s.warmup_steps > 0 ? s.warmup_steps : kUsual;
  return s.learning_rate / std::sqrt(static_cast<double>(step + scale - s.warmup_steps) / static_cast<double>(scale));
}

double plateau(const Schedule& s, const Length&, int64_t) { return s.reduced.value_or(s.learning_rate); }

double from_file(const Schedule& s, const Length&, int64_t step) {
  const auto after = std::ranges::upper_bound(s.points, step, {}, &std::pair<int64_t, double>::first);
  require(after != s.points.begin(), "a file's rates begin with step 0");
  return std::prev(after)->second;
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
    {"multistep", "times `gamma` after each epoch of `milestones`", {"milestones", "gamma"}, multistep},
    {"exponential", "times `gamma` after every epoch", {"gamma"}, exponential},
    {"polynomial",
     "as linear, the share that is left to the power `power`",
     {"power", "final_rate", "decay_steps"},
     polynomial},
    {"cosine_restarts",
     "half a cosine to `final_rate` over `restart_epochs` epochs, again and again, each `restart_factor` times as long",
     {"restart_epochs", "restart_factor", "final_rate"},
     cosine_restarts},
    {"one_cycle",
     "from the full rate over `rise_factor` up to it in `rise_fraction` of the steps and down to the first over "
     "`fall_factor`, both along half a cosine; with `three_phases` back to the first as long as it rose, then on. "
     "PyTorch's OneCycleLR with cycle_momentum=False",
     {"rise_fraction", "rise_factor", "fall_factor", "three_phases", "decay_steps"},
     one_cycle},
    {"inverse_sqrt",
     "falls with the root of the step: half of the full rate at four times `warmup_steps` (10,000 where it is 0)",
     {},
     inverse_sqrt},
    {"plateau",
     "times `gamma`, down to `final_rate`, after more than `plateau_patience` epochs in which `plateau_measure` has "
     "not become better by a share of `plateau_threshold`; the next `plateau_cooldown` epochs do not count. PyTorch's "
     "ReduceLROnPlateau",
     {"gamma", "plateau_measure", "plateau_patience", "plateau_threshold", "plateau_cooldown", "final_rate"},
     plateau},
    {"file",
     "of `schedule_file`, whatever `learning_rate` and `warmup_steps` are: a rate a line, of step after step, or lines "
     "STEP,RATE, steps from 0 on; the last holds to the end",
     {"schedule_file"},
     from_file},
};

}  // namespace

bool ScheduleRow::reads(std::string_view key) const { return std::ranges::find(keys, key) != keys.end(); }

std::span<const ScheduleRow> learning_rate_schedules() { return kRows; }

const ScheduleRow* find_schedule(std::string_view name) {
  const auto found = std::ranges::find(kRows, name, &ScheduleRow::name);
  return found == kRows.end() ? nullptr : &*found;
}

std::vector<std::pair<int64_t, double>> read_schedule_file(const std::filesystem::path& path) {
  constexpr int64_t kLargest = int64_t{1} << 26;
  std::string text;
  try {
    text = read_file(path, kLargest);
  } catch (const Error& e) {
    throw Error(std::string("schedule_file: ") + e.what());
  }
  std::vector<std::pair<int64_t, double>> points;
  enum : uint8_t { unknown, rates, pairs } form = unknown;
  Problems problems;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size() && problems.messages().size() < 10;) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1, ++number;
    line.erase(std::min(line.find('#'), line.size()));
    std::erase_if(line, [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
    if (line.empty()) continue;
    const size_t comma = line.find(',');
    const auto is = comma == std::string::npos ? rates : pairs;
    if (form == unknown) form = is;
    int64_t step = static_cast<int64_t>(points.size());
    double rate = 0;
    const char *from = line.data(), *to = line.data() + line.size();
    bool good = is == form;
    if (good && is == pairs) {
      const auto [at, error] = std::from_chars(from, from + comma, step);
      good = error == std::errc() && at == from + comma;
      from += comma + 1;
    }
    const auto [at, error] = std::from_chars(from, to, rate);
    good = good && error == std::errc() && at == to && std::isfinite(rate) && rate >= 0;
    if (!good)
      problems.add(fmt::format("schedule_file '{}', line {}: {} expected, found '{}'", path.string(), number,
                               form == pairs ? "STEP,RATE" : "a rate of at least 0", printable(line)));
    else if (points.empty() ? step != 0 : step <= points.back().first)
      problems.add(fmt::format("schedule_file '{}', line {}: {} expected, found step {}", path.string(), number,
                               points.empty() ? "step 0 first" : fmt::format("a step after {}", points.back().first),
                               step));
    else
      points.emplace_back(step, rate);
  }
  problems.throw_if_any();
  if (points.empty()) throw Error("schedule_file '" + path.string() + "': it holds no rates");
  return points;
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
  if (row->reads("milestones")) {
    if (schedule.milestones.empty())
      problems.add("milestones: none are given: name the epochs after which the rate changes, such as 30,60,80");
    if (!std::ranges::is_sorted(schedule.milestones, std::less_equal{}) ||
        (!schedule.milestones.empty() && schedule.milestones.front() < 1))
      problems.add("milestones: epochs from 1 on in ascending order expected");
  }
  if (row->rate == plateau && !(schedule.gamma < 1))
    problems.add(fmt::format("gamma: {:g}, expected less than 1 with schedule plateau", schedule.gamma));
  if (row->rate == from_file && schedule.points.empty())
    problems.add("schedule_file: none is given: name a file with a rate a line");
  problems.throw_if_any();
}

double learning_rate(const LearningRateSchedule& schedule, const TrainingLength& length, int64_t step) {
  const ScheduleRow& row = *find_schedule(schedule.kind);
  if (step < schedule.warmup_steps && row.rate != from_file)
    return schedule.learning_rate * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  return row.rate(schedule, length, step);
}

}  // namespace halfstep
