#include "training/epoch_rules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace halfstep {
namespace {

// What every epoch has beside the measures that the recipe asks for.
struct EpochMeasure {
  std::string_view name;
  MeasureRow::Better better;
  std::optional<double> (*of)(double loss, const std::optional<double>& accuracy,
                              const std::optional<TokenMeasures>& tokens);
  bool EpochMeasures::* needs = nullptr;
  std::string_view otherwise = {};  // why a run has none
};
using Number = std::optional<double>;
using Tokens = std::optional<TokenMeasures>;

constexpr EpochMeasure kMeasures[] = {
    {"loss", MeasureRow::smaller, [](double loss, const Number&, const Tokens&) { return Number(loss); }},
    {"accuracy", MeasureRow::larger, [](double, const Number& accuracy, const Tokens&) { return accuracy; },
     &EpochMeasures::has_classes, "of classes, and the loss has none"},
    {"perplexity", MeasureRow::smaller,
     [](double, const Number&, const Tokens& tokens) { return tokens ? Number(tokens->perplexity) : Number(); },
     &EpochMeasures::has_tokens, "of tokens, and the data are none"},
    {"bits_per_byte", MeasureRow::smaller,
     [](double, const Number&, const Tokens& tokens) { return tokens ? tokens->bits_per_byte : Number(); },
     &EpochMeasures::has_text, "of a text's bytes, and the data are none"},
};
constexpr std::string_view kTest = "test_";

bool is_test(const std::string& name) { return name.starts_with(kTest); }
std::string plain(const std::string& name) { return is_test(name) ? name.substr(kTest.size()) : name; }

const EpochMeasure* find_measure(const std::string& name) {
  const auto found = std::ranges::find(kMeasures, plain(name), &EpochMeasure::name);
  return found == std::end(kMeasures) ? nullptr : &*found;
}

bool is_in(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

bool is_table(const std::string& measure) { return measure_row(measure).name == "confusion"; }

// Of several losses each has a measure of the name.
std::vector<std::string> held_out_of(const EpochMeasures& run, const std::string& name) {
  std::vector<std::string> names;
  for (const std::string& one : run.held_out)
    if (one == name || one.ends_with("." + name)) names.push_back(std::string(kTest) + one);
  return names;
}

// Why a run's epochs have none, and what there is; empty: they have.
std::string refusal(const std::string& name, const EpochMeasures& run) {
  const std::string measure = plain(name);
  if (is_test(name) && is_in(run.held_out, measure)) return {};
  const EpochMeasure* usual = find_measure(name);
  if (is_test(name) && !run.is_evaluated)
    return fmt::format("of held-out data, and there is none: name test_data, or take {}",
                       usual != nullptr ? measure : "loss");
  if (usual != nullptr && (usual->needs == nullptr || run.*usual->needs)) return {};
  if (const std::vector<std::string> others = held_out_of(run, measure); !others.empty())
    return fmt::format("{}: take {}", is_test(name) ? "one of each loss" : "of held-out data alone",
                       fmt::join(others, " or "));
  return usual != nullptr ? fmt::format("{}: take loss", usual->otherwise)
                          : "of held-out data alone: take test_" + measure;
}

}  // namespace

std::optional<double> measure_of(const EpochRow& row, const std::string& name) {
  if (is_test(name) && row.test) {
    if (const std::optional<double> asked = row.test->measures.find(plain(name))) return asked;
    // The accuracy of classes is the step's own, also that of each of several losses.
    for (const LossRow& loss : row.test->losses)
      if (plain(name) == loss.name + ".accuracy") return loss.accuracy;
  }
  const EpochMeasure* measure = find_measure(name);
  if (measure == nullptr) return std::nullopt;
  if (!is_test(name)) return measure->of(row.loss, row.accuracy, row.tokens);
  return row.test ? measure->of(row.test->loss, row.test->accuracy, row.test->tokens) : std::nullopt;
}

void check_measure(const std::string& key, const std::string& name, const EpochMeasures& run) {
  const std::string measure = plain(name);
  if (find_measure(name) != nullptr || is_in(run.asked, measure) || is_in(run.held_out, measure)) {
    const std::string why =
        is_in(run.asked, measure) && is_table(measure) ? "a table and no number" : refusal(name, run);
    if (!why.empty()) throw Error(fmt::format("{}: {} is {}", key, name, why));
    return;
  }
  std::vector<std::string> names;
  for (const std::string_view prefix : {std::string_view(), kTest})
    for (const EpochMeasure& row : kMeasures) names.push_back(std::string(prefix) + std::string(row.name));
  for (const std::string& one : run.held_out.empty() ? run.asked : run.held_out)
    names.push_back(std::string(kTest) + one);
  const std::string near = nearest(name, names);
  const bool is_measure = std::ranges::any_of(
      measure_rows(), [&](const MeasureRow& row) { return row.name == measure && row.name != "confusion"; });
  throw Error(is_measure     ? fmt::format("{}: {} is taken where key measures names {}", key, name, measure)
              : near.empty() ? fmt::format("{}: no measure '{}' among {}", key, name, fmt::join(names, ", "))
                             : fmt::format("{}: no measure '{}'; did you mean '{}'?", key, name, near));
}

bool is_better_larger(const std::string& measure) {
  const EpochMeasure* row = find_measure(measure);
  return (row != nullptr ? row->better : measure_row(plain(measure)).better) == MeasureRow::larger;
}

PlateauState of_rule(PlateauState state, const PlateauRule& rule) {
  if (state.measure == rule.measure) return state;
  return {.measure = rule.measure, .best = {}, .rate = state.rate};
}

PlateauState after_epoch(PlateauState state, const PlateauRule& rule, const LearningRateSchedule& schedule,
                         double measured) {
  PlateauState s = of_rule(std::move(state), rule);
  constexpr double kLeastChange = 1e-8;
  const bool larger = is_better_larger(rule.measure);
  const bool better = !s.best  ? std::isfinite(measured)
                      : larger ? measured > *s.best * (1 + rule.threshold)
                               : measured < *s.best * (1 - rule.threshold);
  if (better) s.best = measured;
  s.bad_epochs = better ? 0 : s.bad_epochs + 1;
  if (s.cooldown > 0) --s.cooldown, s.bad_epochs = 0;
  if (s.bad_epochs <= rule.patience) return s;
  const double rate = s.rate.value_or(schedule.learning_rate),
               reduced = std::max(rate * schedule.gamma, schedule.final_rate);
  if (rate - reduced > kLeastChange) s.rate = reduced;
  s.cooldown = rule.cooldown, s.bad_epochs = 0;
  return s;
}

BestState of_rule(BestState state, const BestRule& rule) {
  if (rule.measure.empty() || state.measure == rule.measure) return state;
  return {.measure = rule.measure, .value = {}};
}

BestState after_epoch(BestState state, const BestRule& rule, double measured, int64_t epoch, int64_t step) {
  BestState s = of_rule(std::move(state), rule);
  const bool larger = is_better_larger(rule.measure);
  const auto better = [&](double than, double by) { return larger ? measured > than + by : measured < than - by; };
  if (s.value ? better(*s.value, 0) : std::isfinite(measured)) s.value = measured, s.epoch = epoch, s.step = step;
  const bool improved = s.improved ? better(*s.improved, rule.min_delta) : std::isfinite(measured);
  if (improved) s.improved = measured;
  s.waited = improved ? 0 : s.waited + 1;
  return s;
}

}  // namespace halfstep
