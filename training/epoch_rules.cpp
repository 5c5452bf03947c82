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
};
using Number = std::optional<double>;
using Tokens = std::optional<TokenMeasures>;

constexpr EpochMeasure kMeasures[] = {
    {"loss", MeasureRow::smaller, [](double loss, const Number&, const Tokens&) { return Number(loss); }},
    {"accuracy", MeasureRow::larger, [](double, const Number& accuracy, const Tokens&) { return accuracy; }},
    {"perplexity", MeasureRow::smaller,
     [](double, const Number&, const Tokens& tokens) { return tokens ? Number(tokens->perplexity) : Number(); }},
    {"bits_per_byte", MeasureRow::smaller,
     [](double, const Number&, const Tokens& tokens) { return tokens ? tokens->bits_per_byte : Number(); }},
};
constexpr std::string_view kTest = "test_";

bool is_test(const std::string& name) { return name.starts_with(kTest); }
std::string plain(const std::string& name) { return is_test(name) ? name.substr(kTest.size()) : name; }

const EpochMeasure* find_measure(const std::string& name) {
  const auto found = std::ranges::find(kMeasures, plain(name), &EpochMeasure::name);
  return found == std::end(kMeasures) ? nullptr : &*found;
}

bool is_asked_for(const std::string& name, const std::vector<std::string>& asked) {
  return is_test(name) && std::ranges::find(asked, plain(name)) != asked.end() &&
         measure_row(plain(name)).name != "confusion";
}

}  // namespace

std::optional<double> measure_of(const EpochRow& row, const std::string& name) {
  if (is_test(name) && row.test)
    if (const std::optional<double> asked = row.test->measures.find(plain(name))) return asked;
  const EpochMeasure* measure = find_measure(name);
  if (measure == nullptr) return std::nullopt;
  if (!is_test(name)) return measure->of(row.loss, row.accuracy, row.tokens);
  return row.test ? measure->of(row.test->loss, row.test->accuracy, row.test->tokens) : std::nullopt;
}

void check_measure(const std::string& key, const std::string& name, const std::vector<std::string>& asked) {
  if (find_measure(name) || is_asked_for(name, asked)) return;
  if (const std::string of_test = plain(name); std::ranges::find(asked, of_test) != asked.end())
    throw Error(fmt::format("{}: {} is {}", key, name,
                            measure_row(of_test).name == "confusion"
                                ? "a table and no number"
                                : fmt::format("of held-out data alone: take test_{}", of_test)));
  std::vector<std::string> names;
  for (const std::string_view prefix : {std::string_view(), kTest})
    for (const EpochMeasure& row : kMeasures) names.push_back(std::string(prefix) + std::string(row.name));
  for (const std::string& measure : asked) names.push_back(std::string(kTest) + measure);
  const std::string near = nearest(name, names);
  const bool is_measure = std::ranges::any_of(
      measure_rows(), [&](const MeasureRow& row) { return row.name == plain(name) && row.name != "confusion"; });
  throw Error(is_measure     ? fmt::format("{}: {} is taken where key measures names {}", key, name, plain(name))
              : near.empty() ? fmt::format("{}: no measure '{}' among {}", key, name, fmt::join(names, ", "))
                             : fmt::format("{}: no measure '{}'; did you mean '{}'?", key, name, near));
}

bool is_better_larger(const std::string& measure) {
  const EpochMeasure* row = find_measure(measure);
  return (row != nullptr ? row->better : measure_row(plain(measure)).better) == MeasureRow::larger;
}

PlateauState after_epoch(PlateauState s, const PlateauRule& rule, const LearningRateSchedule& schedule,
                         double measured) {
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

BestState after_epoch(BestState s, const BestRule& rule, double measured, int64_t epoch, int64_t step) {
  const bool larger = is_better_larger(rule.measure);
  const auto better = [&](double than, double by) { return larger ? measured > than + by : measured < than - by; };
  if (s.value ? better(*s.value, 0) : std::isfinite(measured)) s.value = measured, s.epoch = epoch, s.step = step;
  const bool improved = s.improved ? better(*s.improved, rule.min_delta) : std::isfinite(measured);
  if (improved) s.improved = measured;
  s.waited = improved ? 0 : s.waited + 1;
  return s;
}

}  // namespace halfstep
