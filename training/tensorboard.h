// Event files that TensorBoard reads: TFRecords of Event messages, which are few and written by hand, since the runtime
// has no protobuf.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/executor.h"
#include "training/recipe.h"
#include "training/trainer_events.h"

namespace halfstep {

// Appends events to a new file "events.out.tfevents.SECONDS.PROCESS.halfstep" in `directory`, which is made. Error
// where that cannot be done, or in any later call written.
class EventFile {
 public:
  explicit EventFile(const std::filesystem::path& directory);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  struct Scalar {
    std::string tag;
    double value;
  };
  void scalars(int64_t step, const std::vector<Scalar>& values);
  // Counts of finite values in equal parts between the least and the greatest.
  void histogram(int64_t step, const std::string& tag, std::span<const float> values);
  void text(int64_t step, const std::string& tag, const std::string& markdown);
  // Events of this step and later ones in other files of the run, which did not end, count no more.
  void begins_again(int64_t step);
  const std::string& path() const { return path_; }

 private:
  void write_event(int64_t step, std::string_view content);

  std::string path_;
  int fd_ = -1;
};

// Scalars of each step that metrics.jsonl has, and of epochs with their evaluation; after each epoch histograms of the
// weights, and of the gradients where the run reads them, of at most kMostBinned values of a tensor, evenly spread,
// with the norm of all gradients as a scalar; at the beginning the recipe as text.
class TensorBoard final : public TrainObserver {
 public:
  static constexpr size_t kMostBinned = 1 << 18;

  TensorBoard(const std::filesystem::path& out, const Recipe& recipe, Executor& executor);

  void run_begun(int64_t step) override;
  void step_finished(const StepRow& row) override;
  void epoch_finished(const EpochRow& row) override;
  void gradients_read(const EpochRow& row, const FileTensors& gradients) override;

 private:
  void histograms(int64_t step, const std::string& group, const FileTensors& tensors);

  EventFile file_;
  Executor& executor_;
  int64_t every_steps_;
};

}  // namespace halfstep
