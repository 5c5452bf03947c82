#include "driver/session.h"

#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "runtime/cuda_probe.h"

namespace halfstep {

bool is_compiled_directory(const std::string& path) {
  std::error_code unreadable;
  return std::filesystem::is_regular_file(std::filesystem::path(path) / "manifest.json", unreadable);
}

Job open_job(const Recipe& given) {
  if (!is_compiled_directory(given.model)) return {given, std::nullopt};
  CompiledModel model = load_compiled(given.model);
  const auto recipe = model.notes.find("recipe");
  if (recipe == model.notes.end())
    throw Error("compiled step '" + given.model + "' does not say what it was compiled with: compile the model again");
  Recipe compiled;
  read_recipe_text(compiled, recipe->second, "the recipe in '" + given.model + "'", "");
  return {recipe_over_compiled(compiled, given, given.model), std::move(model)};
}

Session open_session(Job& job, const CompileOptions& options) {
  Session session;
  const DeviceKind device = job.compiled ? job.compiled->device : choose_device(job.recipe);
  if (device == DeviceKind::cuda)
    if (const CudaProbe cuda = probe_cuda(0); !cuda.available) throw Error(cuda.reason);
  if (!job.compiled) {
    CompiledTraining compiled = compile_training(job.recipe, device, options);
    session.report = std::move(compiled.report);
    job.compiled = std::move(compiled.model);
  }
  const ExecutorOptions executor{.threads = static_cast<int>(job.recipe.threads),
                                 .allow_tf32 = job.recipe.tf32,
                                 .device_index = 0,
                                 .autotune = static_cast<int>(job.recipe.autotune)};
  session.executor = make_executor(std::move(*job.compiled), executor);
  job.compiled.reset();
  return session;
}

std::optional<Dataset> open_test_data(const Recipe& recipe) {
  if (!recipe.test_data.empty()) return open_dataset(recipe.test_data, Split::test);
  std::error_code unreadable;
  if (std::filesystem::is_directory(recipe.data, unreadable)) return open_dataset(recipe.data, Split::test);
  return std::nullopt;
}

Data open_data(const Recipe& recipe) {
  if (recipe.data.empty()) throw Error("no training data is given: name it with --data or in the recipe");
  return {open_dataset(recipe.data, Split::train), open_test_data(recipe)};
}

int64_t classes_of(const Recipe& recipe, const CompiledModel& model) {
  if (recipe.classes > 0) return recipe.classes;
  const auto found = model.notes.find("classes");
  int64_t classes = 0;
  if (found != model.notes.end())
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), classes);
  return classes;
}

}  // namespace halfstep
