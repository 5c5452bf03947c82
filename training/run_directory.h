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

struct RunDirectory {
  std::filesystem::path path;
  std::unique_ptr<FileLock> lock;  // it is this run's alone until the lock ends
  std::string remark;              // where it was not named: which one was taken, and why; empty: nothing to say
};

// Of the recipe's `out`, where that was given: Error where another run's checkpoints are in it, unless the run goes on
// from a checkpoint or overwrites, or where a file of the user's has a name that the run would write. Where it was not
// given, a run that goes on takes the directory of its checkpoint, every other one the first of out, out-2, out-3 ...
// that is free. Overwriting removes checkpoints, metrics and recipe of a run, and nothing else.
RunDirectory take_run_directory(const Recipe& recipe);

// The trained ONNX file in it.
std::filesystem::path trained_file(const Recipe& recipe);

}  // namespace halfstep
