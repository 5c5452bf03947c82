// What the notes of a compiled step say of a run's data.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/data.h"
#include "data/token_feed.h"
#include "program/program.h"

namespace halfstep {

// What the values of the step's integer inputs are checked against, as it was compiled.
inline ValueRanges noted_ranges(const StepNotes& notes) {
  ValueRanges ranges;
  ranges.classes = notes.label_classes.value_or(notes.classes.value_or(0));
  ranges.ignored = notes.ignored_label;
  ranges.rows = notes.table_rows;
  if (notes.label_bounds && notes.label_input)
    ranges.labels_of[*notes.label_input] = {.ignored = notes.ignored_label, .bounds = notes.label_bounds};
  // Two losses may read the same labels.
  for (const LossNote& loss : notes.losses) {
    if (loss.classes == 0 && !loss.bounds) continue;
    const auto [entry, fresh] =
        ranges.labels_of.try_emplace(loss.labels, LabelRange{loss.classes, loss.ignored, loss.bounds});
    LabelRange& both = entry->second;
    if (!fresh) both.classes = std::min(both.classes, loss.classes);
    if (both.ignored != loss.ignored) both.ignored.reset();
  }
  // Tokens are the labels of a token objective.
  if (const auto tokens = ranges.labels_of.find(kTokenLabels); tokens != ranges.labels_of.end() && ranges.classes == 0)
    ranges.classes = tokens->second.classes;
  return ranges;
}

// What of the learning rate each of the step's rates has in an epoch, counted from 1; `full` is that of the recipe,
// which schedules change. Empty: all have it. Error where rates of their own are no share of it.
inline std::vector<double> rate_shares(const StepNotes& notes, double full, int64_t epoch) {
  std::vector<double> shares;
  for (const RateNote& rate : notes.rates) {
    const double share = rate.learning_rate ? *rate.learning_rate / full : 1;
    if (!std::isfinite(share))
      throw Error(fmt::format(
          "learning_rate: {} beside a group's own of {}, which the schedule takes as a share of it: give a larger one",
          full, *rate.learning_rate));
    shares.push_back(epoch < rate.from_epoch ? 0 : share);
  }
  return shares;
}

// The inputs that the losses added to the model's.
inline std::set<std::string> label_inputs(const StepNotes& notes) {
  std::set<std::string> inputs;
  if (notes.label_input) inputs.insert(*notes.label_input);
  for (const LossNote& loss : notes.losses)
    if (!loss.labels.empty()) inputs.insert(loss.labels);
  return inputs;
}

}  // namespace halfstep
