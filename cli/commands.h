// The commands of the `halfstep` executable. Data goes to stdout, messages and progress to stderr.
#pragma once

#include <string>

#include "cli/guarded.h"
#include "compiler/compile.h"
#include "compiler/recipe.h"
#include "training/predict.h"

namespace halfstep {

// Of inspect.
struct InspectOptions {
  std::string nodes;                                     // pattern (* ? []) of names
  std::vector<std::string> only;                         // low, fp32, folded, casts, backward, weights
  std::string html, evidence, model_explorer, annotate;  // files
  enum Subject : uint8_t { precision, parameters } subject = precision;
};

struct CommandOptions {
  Format format = Format::text;
  CompileOptions compile;
  enum Timing : uint8_t { quiet, time_passes } timing = quiet;
  // all: inspect: a row per IR node; bench: a row per call. explained: bench: calls beside estimates.
  enum Detail : uint8_t { summary, all, explained } detail = summary;
  std::string target;      // compile: the directory; export, gradients, predict, report: the file
  std::string sign;        // compile: a private key
  std::string cubins;      // compile: architectures
  std::string checkpoint;  // eval, predict, export, gradients: weights to use
  enum Exported : uint8_t { model, mixed_model, training_graph, training_info, training_operators } exported = model;
  std::vector<std::string> outputs;                            // export: that the model keeps; none: all
  enum Trace : uint8_t { untraced, traced } trace = untraced;  // train: every stage
  enum Verbosity : uint8_t { usual_run, quiet_run, verbose_run } verbosity = usual_run;  // train
  enum Config : uint8_t { used, printed } config = used;                                 // the recipe that holds
  std::string shell;                                                                     // completion
  InspectOptions inspect;
  std::vector<std::string> sides;        // diff: two
  std::string diff_model;                // of sides that are presets and policies
  int64_t steps = 20, random_steps = 0;  // doctor: on data; on random inputs
  int64_t tap_elements = -1;             // of a tensor that taps count, at most; -1: as they are
  std::string check;                     // doctor: the user's command
  std::string recipe_file;               // that was read; empty: none was
  int64_t top = 0;                       // predict: see PredictOptions
  PredictOptions::Scores scores = PredictOptions::as_given;
  std::string trace_file;  // bench: of the calls' times; empty: none
  int repeats = 0;         // bench: steps that are timed; 0: as many as suit the device
};

// `recipe` is as given; its model may be a directory that `compile` made for train, eval, predict, export
// and bench.
ExitCode run_info(const CommandOptions& options);
ExitCode run_check(const Recipe& recipe, const CommandOptions& options);
ExitCode run_inspect(const Recipe& recipe, const CommandOptions& options);
ExitCode run_compile(const Recipe& recipe, const CommandOptions& options);
ExitCode run_train(const Recipe& recipe, const CommandOptions& options);
ExitCode run_gradients(const Recipe& recipe, const CommandOptions& options);
ExitCode run_eval(const Recipe& recipe, const CommandOptions& options);
ExitCode run_predict(const Recipe& recipe, const CommandOptions& options);
ExitCode run_export(const Recipe& recipe, const CommandOptions& options);
ExitCode run_doctor(const Recipe& recipe, const CommandOptions& options);
ExitCode run_report(const std::string& out, const CommandOptions& options);
ExitCode run_bench(const Recipe& recipe, const CommandOptions& options);

}  // namespace halfstep
