// A curve of losses in characters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "training/trainer_events.h"

namespace halfstep {

// Eight lines over an axis of steps from `first_step` on, at most `columns` wide; 0: 80. A column is the mean of its
// steps, those that are not finite left out. "" where there are none.
std::string loss_curve(std::span<const double> losses, int64_t first_step, size_t columns);

// Remembers the loss of every step of a run, NaN where it was skipped.
class LossRecorder final : public TrainObserver {
 public:
  void step_finished(const StepRow& row) override;
  const std::vector<double>& losses() const { return losses_; }
  int64_t first_step() const { return first_step_; }

 private:
  int64_t first_step_ = 1;
  std::vector<double> losses_;
};

}  // namespace halfstep
