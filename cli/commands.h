// The commands of the `halfstep` executable. Data goes to stdout, messages and progress to stderr.
#pragma once

#include <string>

#include "compiler/compile.h"
#include "compiler/recipe.h"

namespace halfstep {

enum class ExitCode : int {
  success = 0,
  error = 1,          // the model, the data, an option or the machine; the message says which
  usage = 2,          // the command line
  internal = 3,       // a bug of ours
  not_ready = 4,      // check: the model has problems
  hung_up = 129,      // SIGHUP: a checkpoint was written
  interrupted = 130,  // SIGINT: likewise
  terminated = 143,   // SIGTERM: likewise
};

// Of a run that `signal` stopped.
constexpr ExitCode stopped_by(int signal) { return static_cast<ExitCode>(128 + signal); }

enum class Format : uint8_t { text, json };

struct CommandOptions {
  Format format = Format::text;
  CompileOptions compile;
  enum Timing : uint8_t { quiet, time_passes } timing = quiet;
  enum Detail : uint8_t { summary, all } detail = summary;  // inspect: a row per IR node; bench: a row per call
  std::string target;      // compile: the directory; export: the ONNX file; gradients: the safetensors file
  std::string checkpoint;  // eval, export, gradients: weights to use
  enum Exported : uint8_t { model, training_graph, training_info } exported = model;
  int repeats = 0;         // bench: steps that are timed; 0: as many as suit the device
};

// `recipe` is as given; its model may be a directory that `compile` made for train, eval, export and bench.
ExitCode run_info(const CommandOptions& options);
ExitCode run_check(const Recipe& recipe, const CommandOptions& options);
ExitCode run_inspect(const Recipe& recipe, const CommandOptions& options);
ExitCode run_compile(const Recipe& recipe, const CommandOptions& options);
ExitCode run_train(const Recipe& recipe, const CommandOptions& options);
ExitCode run_gradients(const Recipe& recipe, const CommandOptions& options);
ExitCode run_eval(const Recipe& recipe, const CommandOptions& options);
ExitCode run_export(const Recipe& recipe, const CommandOptions& options);
ExitCode run_bench(const Recipe& recipe, const CommandOptions& options);

}  // namespace halfstep
