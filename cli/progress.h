// What a person sees while a model trains: one row an epoch on stdout, progress and a loss curve on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "cli/loss_curve.h"
#include "training/trainer_events.h"

namespace halfstep {

// How much of a run there is to tell.
struct RunLength {
  int64_t epochs = 1;
  int64_t max_steps = 0;     // counted from the first run's start; 0: no limit
  int64_t memory_bytes = 0;  // that the run takes; 0: not told
};

struct ProgressLine {
  std::string before, done, left, after;  // the bar is `done` and `left`
  std::string text() const { return before + done + left + after; }
};
// At most `columns` wide; what tells least is left out first, the bar shrinks before that.
ProgressLine progress_line(const Progress& progress, int64_t epoch, const RunLength& length,
                           const std::optional<double>& seconds_left, size_t columns);
// "45 s", "12:05", "3:04:05", "2 d 03 h".
std::string duration_text(double seconds);

class TerminalObserver final : public TrainObserver {
 public:
  enum Steps : uint8_t { summed, each };  // a plain line for each step
  // A terminal gets a line that is rewritten in place, and a curve of the losses so far below the epochs' rows; a log a
  // plain line every ten seconds.
  explicit TerminalObserver(const RunLength& length, Steps steps = summed);
  ~TerminalObserver() override { clear(); }

  void epoch_begun(int64_t epoch, int64_t steps) override;
  void step_finished(const StepRow& row) override;
  void progressed(const Progress& progress) override;
  void epoch_finished(const EpochRow& row) override;

 private:
  using Clock = std::chrono::steady_clock;
  void clear_line();
  void clear();
  void draw_curve();
  std::optional<double> seconds_left(const Progress& progress) const;

  const RunLength length_;
  const Steps steps_;
  int64_t epoch_ = 0;
  enum : uint8_t { terminal, log } medium_;
  bool header_printed_ = false, line_open_ = false;
  std::set<std::string> told_;  // remarks
  size_t curve_lines_ = 0;      // on the screen, above the cursor
  LossRecorder losses_;
  std::optional<int64_t> first_step_;  // of this run
  Clock::time_point began_, last_line_;
};

}  // namespace halfstep
