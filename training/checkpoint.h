// Checkpoints: one directory each, `step-000001234`, with weights.safetensors, slots.safetensors (see ModelState) and
// manifest.json (counts, seeds, the type and checksum of every tensor). For PyTorch, and not read here:
// grad_scaler.json (see grad_scaler.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "data/data_facts.h"
#include "training/checkpoint_state.h"
#include "training/epoch_rules.h"
#include "training/loss_sums.h"

namespace halfstep {

// Sums over the steps of the epoch so far.
struct EpochTotals {
  int64_t steps = 0;
  int64_t skipped = 0;
  int64_t samples = 0;
  double loss = 0;         // a sum over the labels of the steps that were not skipped,
  double loss_labels = 0;  // how many these are, in samples
  std::optional<double> correct{};
  double counted = 0;                  // labels that could be correct, in samples
  std::optional<double> loss_scale{};  // of the last step
  std::vector<LossSums> losses{};      // each of several; of skipped steps the accuracy alone
  friend bool operator==(const EpochTotals&, const EpochTotals&) = default;
};

// Skipped steps that the schedule has not counted. What the device skipped is known here only later: a step counts as
// skipped kSkipDelay steps after it, whenever its result came.
struct SkippedSteps {
  int64_t counted = 0;
  std::vector<int64_t> later{};  // numbers from 0 of those that are yet to count, ascending
  friend bool operator==(const SkippedSteps&, const SkippedSteps&) = default;
};
inline constexpr int64_t kSkipDelay = 8;  // more steps than an executor has in flight

// The host's part of a run: with the executor's state, all that the next step depends on.
struct TrainState {
  int64_t step = 0;       // optimizer steps finished, skipped ones included
  int64_t epoch = 0;      // finished
  int64_t position = 0;   // samples of the current epoch's order already used
  int64_t iteration = 0;  // batches submitted; the counter of the graph's random numbers
  uint64_t seed = 0;      // of the data order and of the graph's random numbers
  int64_t samples = 0;    // of the training set
  DataFacts data{};       // what the run learned of it
  EpochTotals totals{};
  SkippedSteps skipped{};
  PlateauState plateau{};
  BestState best{};
  friend bool operator==(const TrainState&, const TrainState&) = default;
};

struct CheckpointEntry {
  std::filesystem::path path;
  int64_t step = 0;
};

// Creates `directory` where it is missing; throws Error where checkpoints could not be written into it.
void prepare_checkpoint_directory(const std::filesystem::path& directory);
// Gives whole checkpoints that a run left hidden when it died their names and removes its other remains. For the one
// run that writes here.
void recover_checkpoints(const std::filesystem::path& directory);

// Writes to a temporary name in `directory`, syncs, renames; then removes all but the newest `keep` (0: keeps all) and
// that of the state's best epoch. One of the same step changes places with it; where it is the same already, nothing is
// written. Returns the checkpoint's path. On an Error (full disk, say) the older ones are untouched. At every moment of
// it a run may die: the checkpoint that stood here or the new one is found when resuming.
std::filesystem::path save_checkpoint(const std::filesystem::path& directory, Executor& executor,
                                      const TrainState& state, int keep);

// Newest first; what is not named like a checkpoint is passed over, contents are not looked at.
std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& directory);

struct Checkpoint {
  TrainState train;
  ModelState model;
};

// `path` is a checkpoint, or a directory of them: then its newest. A corrupt one is refused with an Error that names
// what is wrong and offers the next older intact one.
Checkpoint read_checkpoint(const std::filesystem::path& path);

// Reads and writes all of the executor's state; on an Error it is untouched.
TrainState load_checkpoint(const std::filesystem::path& path, Executor& executor);

// TrainState::data alone, without reading weights.
DataFacts read_data_facts(const std::filesystem::path& path);

// For export and evaluation: parameters and non-trainable tensors in the ONNX layout.
FileTensors read_checkpoint_weights(const std::filesystem::path& path, WeightsKind kind = WeightsKind::last);
// That after `step` in `directory`; empty: it is not there.
std::filesystem::path checkpoint_of_step(const std::filesystem::path& directory, int64_t step);

}  // namespace halfstep
