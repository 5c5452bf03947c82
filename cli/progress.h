// What a person sees while a model trains: one row an epoch on stdout, progress on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <string>

#include "training/trainer_events.h"

namespace halfstep {

class TerminalObserver final : public TrainObserver {
 public:
  // A terminal gets a line that is rewritten in place; a log a plain line every ten seconds.
  explicit TerminalObserver(int64_t epochs);
  ~TerminalObserver() override { clear_line(); }

  void epoch_begun(int64_t epoch, int64_t steps) override;
  void progressed(const Progress& progress) override;
  void epoch_finished(const EpochRow& row) override;

 private:
  void clear_line();

  int64_t epochs_, epoch_ = 0;
  enum : uint8_t { terminal, log } medium_;
  bool header_printed_ = false, line_open_ = false;
  std::chrono::steady_clock::time_point last_line_;
  std::set<std::string> told_;  // remarks
};

}  // namespace halfstep
