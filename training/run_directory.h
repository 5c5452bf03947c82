// The directory a run writes: its checkpoints, metrics, recipe and trained model.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/file_lock.h"
#include "training/recipe.h"

namespace halfstep {

// What a run's recipe.toml begins with, so that it is told from one of the user's.
inline constexpr std::string_view kRunRecipeMark = "# What held in this run of halfstep.\n";
// And its pictures of confusion matrices.
inline constexpr std::string_view kConfusionMark = "<svg class=\"halfstep-confusion\"";
// Whether a file begins with such a mark.
bool begins_with(const std::filesystem::path& file, std::string_view mark);

struct RunDirectory {
  std::filesystem::path path;
  std::unique_ptr<FileLock> lock;  // it is this run's alone until the lock ends
  std::string remark;              // where it was not named: which one was taken, and why; empty: nothing to say
};

// What a run writes there beside its checkpoints.
enum class RunWrites : uint8_t { records, records_and_model };  // of halfstep-run, which has no model and no recipe

// Of the recipe's `out`, where that was given: Error where another run's checkpoints are in it, unless the run goes on
// from a checkpoint or overwrites, or where a file of the user's has a name that the run would write. Where it was not
// given, a run that goes on takes the directory of its checkpoint, every other one the first of out, out-2, out-3 ...
// that is free. Overwriting removes what a run wrote, and nothing else.
RunDirectory take_run_directory(const Recipe& recipe, RunWrites writes);

// The trained ONNX file in it.
std::filesystem::path trained_file(const Recipe& recipe);

}  // namespace halfstep
