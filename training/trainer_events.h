// What a training run reports while it goes, and to whom.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_feed.h"
#include "runtime/executor.h"
#include "training/loss_sums.h"
#include "training/measures.h"

namespace halfstep {

// Steps and epochs count from 1 in rows. Losses are means over samples, accuracies over the labels that count. An
// optional is absent where the program has no such output. Of several losses `loss` is the weighted sum, `accuracy`
// that of the first that has one.
struct StepRow {
  int64_t step = 0;
  int64_t epoch = 0;
  double loss = 0;
  std::optional<double> accuracy{};
  std::vector<LossRow> losses{};  // of several
  std::optional<double> loss_scale{};
  bool skipped = false;  // the gradients overflowed and the device left the weights as they were
  double learning_rate = 0;
  double samples_per_second = 0;  // over the epoch so far
  std::optional<TokenMeasures> tokens{};
};

struct Evaluation {
  int64_t samples = 0;
  double loss = 0;
  std::optional<double> accuracy{};
  std::vector<LossRow> losses{};
  std::optional<TokenMeasures> tokens{};
  MeasureReport measures{};
  double seconds = 0;
  bool interrupted = false;  // by a signal: the values are over fewer samples than the set has
};

struct EpochRow {
  int64_t epoch = 0;
  int64_t step = 0;  // after it
  double loss = 0;   // over the steps that were not skipped
  std::optional<double> accuracy{};
  std::vector<LossRow> losses{};
  std::optional<Evaluation> test{};
  std::optional<double> loss_scale{};
  int64_t skipped = 0;
  double samples_per_second = 0;  // training alone
  double seconds = 0;
  std::optional<double> data_wait{};  // share of the time that training waited for images; absent: there are none
  std::optional<TokenMeasures> tokens{};
};

struct Progress {
  StepRow last;  // newest step whose result is here
  int64_t step_in_epoch = 0;
  int64_t steps_per_epoch = 0;
  int64_t skipped = 0;                // in the epoch
  std::optional<double> data_wait{};  // as EpochRow has it, of the epoch so far
};

enum class StopReason : uint8_t { completed, interrupted, no_improvement };
inline constexpr std::string_view name(StopReason reason) {
  return reason == StopReason::completed     ? "completed"
         : reason == StopReason::interrupted ? "interrupted"
                                             : "no improvement";
}

// The epoch that was best by the measure of recipe key `best`.
struct BestEpoch {
  std::string measure{};
  double value = 0;
  int64_t epoch = 0, step = 0;
  std::filesystem::path checkpoint{};  // empty: there is none, or none any more
};

struct TrainReport {
  StopReason reason = StopReason::completed;
  int64_t steps = 0;
  std::vector<EpochRow> epochs{};
  std::filesystem::path checkpoint{};  // the last one written; empty: none
  std::optional<BestEpoch> best{};
  double seconds = 0;
  ExecutorCounters counters{};
  MemoryReport memory{};
};

// Called on the training thread; each call delays the next step.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void run_begun(int64_t /*step*/) {}  // goes on after this one; 0: anew
  virtual void epoch_begun(int64_t /*epoch*/, int64_t /*steps_per_epoch*/) {}
  virtual void step_finished(const StepRow&) {}
  virtual void progressed(const Progress&) {}  // at most ten times a second
  virtual void epoch_finished(const EpochRow&) {}
  // Of the epoch's last batch by the weights after it, where TrainOptions ask for them; right after epoch_finished.
  virtual void gradients_read(const EpochRow&, const FileTensors& /*gradients*/) {}
  virtual void checkpoint_written(const std::filesystem::path&, int64_t /*step*/) {}
  virtual void finished(const TrainReport&) {}
};

// Passes every event on, in order.
class ObserverList final : public TrainObserver {
 public:
  explicit ObserverList(std::vector<TrainObserver*> observers) : observers_(std::move(observers)) {}

  void run_begun(int64_t step) override {
    for (TrainObserver* o : observers_) o->run_begun(step);
  }
  void epoch_begun(int64_t epoch, int64_t steps_per_epoch) override {
    for (TrainObserver* o : observers_) o->epoch_begun(epoch, steps_per_epoch);
  }
  void step_finished(const StepRow& row) override {
    for (TrainObserver* o : observers_) o->step_finished(row);
  }
  void progressed(const Progress& progress) override {
    for (TrainObserver* o : observers_) o->progressed(progress);
  }
  void epoch_finished(const EpochRow& row) override {
    for (TrainObserver* o : observers_) o->epoch_finished(row);
  }
  void gradients_read(const EpochRow& row, const FileTensors& gradients) override {
    for (TrainObserver* o : observers_) o->gradients_read(row, gradients);
  }
  void checkpoint_written(const std::filesystem::path& path, int64_t step) override {
    for (TrainObserver* o : observers_) o->checkpoint_written(path, step);
  }
  void finished(const TrainReport& report) override {
    for (TrainObserver* o : observers_) o->finished(report);
  }

 private:
  std::vector<TrainObserver*> observers_;
};

}  // namespace halfstep
