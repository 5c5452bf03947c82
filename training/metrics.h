// Metrics as JSON lines: objects with "kind" "step", "epoch" and at last "end". A value that is not finite is null.
#pragma once

#include <filesystem>
#include <string>

#include "training/trainer_events.h"

namespace halfstep {

class MetricsFile final : public TrainObserver {
 public:
  // Appends to `path`. One step in `every_steps` is written; 0: none. Throws Error where the file cannot be opened or,
  // in any later call, written.
  MetricsFile(const std::filesystem::path& path, int64_t every_steps);
  ~MetricsFile() override;
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  // Takes back what a run told that went further and died: lines of later steps, and a last one that is not whole.
  void run_begun(int64_t step) override;
  void step_finished(const StepRow& row) override;
  void epoch_finished(const EpochRow& row) override;
  void finished(const TrainReport& report) override;

 private:
  void open();
  // Each line goes to the system in one write: a run that dies leaves whole lines.
  void write_line(std::string line);

  std::string path_;
  int fd_ = -1;
  int64_t every_steps_;
};

}  // namespace halfstep
