// Training and evaluation of a compiled model over a data set.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "base/error.h"
#include "data/data_feed.h"
#include "runtime/signals.h"
#include "training/checkpoint.h"
#include "training/epoch_rules.h"
#include "training/grad_scaler.h"
#include "training/learning_rate.h"
#include "training/measures.h"
#include "training/trainer_events.h"

namespace halfstep {

struct CheckpointPolicy {
  std::filesystem::path directory;  // empty: none are written
  int64_t every_steps = 0;          // besides the one after each epoch and at the end; 0: none
  int keep = 3;                     // newest that stay; 0: all
};

struct TrainOptions {
  int64_t epochs = 1;
  // Stops after this step, counted from the start of the first run, with an evaluation; 0: no limit. The learning rates
  // are those of the whole `epochs`.
  int64_t max_steps = 0;
  int64_t accumulation = 1;  // batches per optimizer step, as the programs were compiled
  uint64_t seed = 0;         // a resumed run keeps the one it began with
  SampleOrder order = SampleOrder::shuffled;
  LearningRateSchedule schedule;
  // Whether the schedule goes on with a step that was skipped; if not, it stands still kSkipDelay steps later.
  enum Skipped : uint8_t { hold_the_schedule, advance_the_schedule } skipped = hold_the_schedule;
  // Of the schedule plateau, and of what is kept and when training ends. No measure: the loss, of held-out data where
  // there is some; `best` needs none without patience.
  PlateauRule plateau{};
  BestRule best{};
  WeightsKind evaluated = WeightsKind::average;
  FeedOptions feed{};
  ValueRanges ranges{};                      // what labels, tokens and ids are checked against
  std::optional<GradScalers> grad_scaler{};  // where a run that does not resume begins; absent: as compiled
  double min_scale = 1;                      // the graph's floor of the loss scale
  // Steps in a row that may overflow at the floor, or have a loss that is not finite. Where the graph does not check
  // its gradients (no output "overflow") the first such loss has ruined the weights.
  int64_t overflow_limit = 50;
  int64_t skip_limit = 0;  // steps skipped in a row at whatever scale; 0: no limit
  CheckpointPolicy checkpoints;
  std::filesystem::path resume;          // a checkpoint or a directory of them; empty: start anew
  const SignalGuard* signals = nullptr;  // checked after each step
  MeasureOptions measures{};             // of the evaluations
  bool gradients = false;                // of each epoch's last batch, for the observer: program "gradients"
};

// Training makes no headway: its gradients keep overflowing at the floor of the loss scale, its loss is not finite, or
// none of its steps changed the weights.
// Holds what it takes to look for the reason in the last such step, whose state the executor still has.
class HeadwayError : public Error {
 public:
  struct Step {
    int64_t step = 0;
    int64_t iteration = 0;               // of its first batch
    uint64_t seed = 0;                   // of the graph's random numbers
    std::optional<double> loss_scale{};  // that its gradients had; absent: none
    std::vector<int64_t> samples{};      // of the training set
    std::filesystem::path checkpoint{};  // the last one written; empty: none
  };
  HeadwayError(const std::string& message, Step step) : Error(message), step_(std::move(step)) {}
  const Step& step() const { return step_; }

 private:
  Step step_;
};

// Runs program "train" (after accumulation - 1 times "accumulate") over `train_set` once an epoch; what is left of an
// epoch and smaller than a step is dropped. After each epoch evaluates `test_set` if there is one. After a
// signal writes a checkpoint and returns with StopReason::interrupted. Resuming continues with the very next sample.
// Throws Error where data and program do not fit or the state cannot be kept, HeadwayError where training is stuck.
TrainReport train(Executor& executor, const Dataset& train_set, const Dataset* test_set, const TrainOptions& options,
                  TrainObserver& observer);

struct EvaluateOptions {
  FeedOptions feed{};
  ValueRanges ranges{};
  uint64_t seed = 0;
  const SignalGuard* signals = nullptr;
  MeasureOptions measures{};
};

// Runs program "evaluate" over all samples in order. The last batch is filled up with its last sample; only real rows
// count.
Evaluation evaluate(Executor& executor, const Dataset& dataset, const EvaluateOptions& options);

// Index of a program of the model for Executor::begin_step; Error where it was not compiled.
int program_index(const CompiledModel& model, const std::string& program);

}  // namespace halfstep
