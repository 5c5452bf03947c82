// A compiled step on its device, with the weights it should run with: what train, eval and bench share.
#pragma once

#include <memory>
#include <optional>

#include "driver/compile.h"
#include "driver/recipe.h"
#include "runtime/data.h"
#include "runtime/executor.h"

namespace halfstep {

struct Session {
  Recipe recipe;  // as given, or as the compiled step was made with, under what was given
  std::unique_ptr<Executor> executor;
  std::optional<CompileReport> report;  // absent: the step came compiled
};

// `recipe.model` is an ONNX file, which is compiled, or a directory that `compile` made.
Session open_session(const Recipe& recipe, const CompileOptions& options);

struct Data {
  Dataset train;
  std::optional<Dataset> test;
};
Data open_data(const Recipe& recipe);
std::optional<Dataset> open_test_data(const Recipe& recipe);

bool is_compiled_directory(const std::string& path);

}  // namespace halfstep
