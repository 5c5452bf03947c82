#include "compiler/session.h"

#include "program/signature.h"

namespace halfstep {

Job open_job(const Recipe& given) {
  if (!is_compiled_directory(given.model)) return {given, std::nullopt, {}};
  CompiledModel model = load_compiled(given.model, given.trust);
  Recipe recipe = recipe_over_compiled(recipe_of_step(model, given.model), given, given.model);
  return {std::move(recipe), std::move(model), given.model};
}

Session open_session(Job& job, const CompileOptions& options) {
  Session session;
  const DeviceKind device = job.compiled ? job.compiled->device : choose_device(job.recipe);
  expect_device(device);
  if (!job.compiled) {
    CompileOptions settled = options;
    if (options.programs == TrainingPipelineOptions::training) settled.model_outputs = outputs_of_runs(job.recipe);
    CompiledTraining compiled = compile_training(job.recipe, device, settled);
    session.report = std::move(compiled.report);
    job.compiled = std::move(compiled.model);
  }
  if (options.constants == MissingConstants::refused) refuse_missing_constants(*job.compiled);
  ExecutorOptions executor = executor_options(job.recipe);
  executor.keep_in = job.directory;
  session.executor = make_executor(std::move(*job.compiled), executor);
  job.compiled.reset();
  return session;
}

}  // namespace halfstep
