// A compiled step on its device, with the weights it should run with: what train, eval and bench share.
#pragma once

#include <memory>
#include <optional>

#include "compiler/compile.h"
#include "compiler/recipe.h"
#include "runtime/executor.h"
#include "training/run_setup.h"

namespace halfstep {

// What a command works on.
struct Job {
  Recipe recipe;                          // that holds; recipe.model is the ONNX file
  std::optional<CompiledModel> compiled;  // absent: it is still to be compiled
  std::string directory;                  // of `compiled`, which keeps what is tuned
};

// `given.model` is an ONNX file or a directory that `compile` made. Of the latter the recipe it was compiled with is
// the base, and keys of `given` that need another compilation are an Error.
Job open_job(const Recipe& given);

struct Session {
  std::unique_ptr<Executor> executor;
  std::optional<CompileReport> report;  // absent: the step came compiled
};

// Compiles where that is still to be done. Error where the device is not there, before that.
Session open_session(Job& job, const CompileOptions& options);

}  // namespace halfstep
