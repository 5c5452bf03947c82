// The commands of the `halfstep` executable. Data goes to stdout, messages and progress to stderr.
#pragma once

#include <string>

#include "driver/compile.h"
#include "driver/recipe.h"

namespace halfstep {

enum class ExitCode : int {
  success = 0,
  error = 1,          // the model, the data, an option or the machine; the message says which
  usage = 2,          // the command line
  internal = 3,       // a bug of ours
  not_ready = 4,      // check: the model has problems
  interrupted = 130,  // SIGINT: a checkpoint was written
  terminated = 143,   // SIGTERM: likewise
};

enum class Format : uint8_t { text, json };

struct CommandOptions {
  Format format = Format::text;
  CompileOptions compile;
  enum Timing : uint8_t { quiet, time_passes } timing = quiet;
  std::string target;                                            // compile: the directory; export: the ONNX file
  std::string checkpoint;                                        // eval, export, bench: weights to use
  int repeats = 200;                                             // bench: steps that are timed
  enum Detail : uint8_t { summary, per_call } detail = summary;  // bench: a row for each call of the step
};

ExitCode run_info(const CommandOptions& options);
ExitCode run_check(const Recipe& recipe, const CommandOptions& options);
ExitCode run_inspect(const Recipe& recipe, const CommandOptions& options);
ExitCode run_compile(const Recipe& recipe, const CommandOptions& options);
ExitCode run_train(Recipe recipe, const CommandOptions& options);
ExitCode run_eval(Recipe recipe, const CommandOptions& options);
ExitCode run_export(const Recipe& recipe, const CommandOptions& options);
ExitCode run_bench(Recipe recipe, const CommandOptions& options);

}  // namespace halfstep
