// What is decided after an epoch: a smaller learning rate, which checkpoint is the best, whether training goes on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "training/learning_rate.h"
#include "training/trainer_events.h"

namespace halfstep {

// By its name in metrics.jsonl: loss, accuracy, perplexity or bits_per_byte, "test_" before it of held-out data; of
// these also what key measures asks for (test_f1). Absent where the run has none such.
std::optional<double> measure_of(const EpochRow& row, const std::string& name);
// What the rows of a run's epochs will hold.
struct EpochMeasures {
  std::vector<std::string> asked{};     // of key measures,
  std::vector<std::string> held_out{};  // and the names that evaluations have for them
  bool is_evaluated = false;            // after each epoch
  bool has_classes = false, has_tokens = false, has_text = false;
};
// Error if they will have no measure of this name; `key` names the recipe's key.
void check_measure(const std::string& key, const std::string& name, const EpochMeasures& run);
bool is_better_larger(const std::string& measure);

// Schedule plateau, as torch.optim.lr_scheduler.ReduceLROnPlateau has it.
struct PlateauRule {
  std::string measure;
  int64_t patience = 10, cooldown = 0;
  double threshold = 1e-4;
};
struct PlateauState {
  std::string measure{};  // that these are of; empty: none yet
  std::optional<double> best{};
  int64_t bad_epochs = 0, cooldown = 0;
  std::optional<double> rate{};  // absent: the full one
  friend bool operator==(const PlateauState&, const PlateauState&) = default;
};
// Of another measure nothing but the rate stays.
PlateauState of_rule(PlateauState state, const PlateauRule& rule);
PlateauState after_epoch(PlateauState state, const PlateauRule& rule, const LearningRateSchedule& schedule,
                         double measured);

struct BestRule {
  std::string measure;   // empty: none is looked at
  int64_t patience = 0;  // epochs; 0: training does not end for want of improvement
  double min_delta = 0;  // what counts as an improvement is larger
};
struct BestState {
  std::string measure{};  // as PlateauState's
  std::optional<double> value{};
  int64_t epoch = 0, step = 0;       // after which it was measured
  std::optional<double> improved{};  // the last value that counted as an improvement,
  int64_t waited = 0;                // and the epochs since
  friend bool operator==(const BestState&, const BestState&) = default;
};
// Of another measure nothing stays; a rule without one leaves all.
BestState of_rule(BestState state, const BestRule& rule);
BestState after_epoch(BestState state, const BestRule& rule, double measured, int64_t epoch, int64_t step);

}  // namespace halfstep
