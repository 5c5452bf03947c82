// The command line of `halfstep-run`.
#pragma once

#include <optional>
#include <string>

#include "cli/guarded.h"
#include "training/predict.h"
#include "training/recipe.h"

namespace halfstep {

struct RunCommand {
  enum Kind : uint8_t { train, eval, predict } kind = train;
  Recipe given;  // `model` is the compiled directory, the rest the keys that were given
  Format format = Format::text;
  std::string checkpoint;  // eval, predict: weights to use; empty: those of the step
  std::string output;      // predict: the file to write
  int64_t top = 0;         // predict: see PredictOptions
  PredictOptions::Scores scores = PredictOptions::as_given;
};

// nullopt: help or the version was asked for, and printed. Throws UsageError for what it cannot understand, Error for
// values that make no sense.
std::optional<RunCommand> parse_run_command(int argc, const char* const* argv);

}  // namespace halfstep
