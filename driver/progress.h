// What a person sees while a model trains: one row an epoch on stdout, a progress line on stderr.
#pragma once

#include <cstdio>
#include <string>

#include "runtime/trainer_events.h"

namespace halfstep {

class TerminalObserver final : public TrainObserver {
 public:
  explicit TerminalObserver(int64_t epochs) : epochs_(epochs) {}
  void epoch_begun(int64_t epoch, int64_t steps) override;
  void progressed(const Progress& progress) override;
  void epoch_finished(const EpochRow& row) override;

 private:
  void clear_line();

  int64_t epochs_, epoch_ = 0;
  bool header_printed_ = false, line_open_ = false;
};

}  // namespace halfstep
