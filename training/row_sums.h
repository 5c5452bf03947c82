// What an evaluation adds up of its batches.
#pragma once

#include <vector>

#include "training/loss_sums.h"
#include "training/measures.h"
#include "training/trainer_events.h"

namespace halfstep {

class RowSums {
 public:
  // `notes` outlive it.
  RowSums(const StepNotes& notes, Measures measures) : notes_(notes), measures_(std::move(measures)) {}

  const Measures& measures() const { return measures_; }
  // The first `rows` of a batch, its outputs of program "evaluate" and its labels as measures() took them.
  void add(const NamedTensors& outputs, const Measures::Labels& labels, int64_t rows);
  // So far. Labels that are all ignored have a loss of 0.
  Evaluation evaluation() const;

 private:
  const StepNotes& notes_;
  Measures measures_;
  int64_t samples_ = 0;
  LossSums all_;
  std::vector<LossSums> each_;  // of several losses
};

}  // namespace halfstep
