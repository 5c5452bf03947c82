// A compiled step on its device, with the weights it should run with: what train, eval and bench share.
#pragma once

#include <memory>
#include <optional>

#include "compiler/compile.h"
#include "compiler/recipe.h"
#include "data/data_feed.h"
#include "runtime/executor.h"

namespace halfstep {

// What a command works on.
struct Job {
  Recipe recipe;                          // that holds; recipe.model is the ONNX file
  std::optional<CompiledModel> compiled;  // absent: it is still to be compiled
};

// `given.model` is an ONNX file or a directory that `compile` made. Of the latter the recipe it was compiled with is
// the base, and keys of `given` that need another compilation are an Error.
Job open_job(const Recipe& given);
// What `step`, a compiled one, was compiled with.
Recipe recipe_of_step(const CompiledModel& model, const std::string& step);
bool is_compiled_directory(const std::string& path);

struct Session {
  std::unique_ptr<Executor> executor;
  std::optional<CompileReport> report;  // absent: the step came compiled
};

// Compiles where that is still to be done. Error where the device is not there, before that.
Session open_session(Job& job, const CompileOptions& options);

struct Data {
  Dataset train;
  std::optional<Dataset> test;
};
// What the recipe calls data and test_data, or splits off by test_fraction.
Data open_data(const Recipe& recipe);
// The held-out set, or all of the data where none is named.
Dataset open_evaluation_data(const Recipe& recipe);

// How data is fed to the programs of `model`, and what its values are checked against.
FeedOptions feed_options(const Recipe& recipe, const CompiledModel& model);
ValueRanges value_ranges(const Recipe& recipe, const CompiledModel& model);

}  // namespace halfstep
