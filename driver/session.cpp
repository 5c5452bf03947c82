#include "driver/session.h"

#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace halfstep {

bool is_compiled_directory(const std::string& path) {
  return std::filesystem::is_regular_file(std::filesystem::path(path) / "manifest.json");
}

Session open_session(const Recipe& recipe, const CompileOptions& options) {
  Session session{recipe, nullptr, std::nullopt};
  CompiledModel model;
  if (is_compiled_directory(recipe.model)) {
    model = load_compiled(recipe.model);
  } else {
    CompiledTraining compiled = compile_training(recipe, choose_device(recipe), options);
    session.report = std::move(compiled.report);
    model = std::move(compiled.model);
  }
  const ExecutorOptions executor{.threads = static_cast<int>(recipe.threads),
                                 .allow_tf32 = recipe.tf32,
                                 .device_index = 0,
                                 .autotune = static_cast<int>(recipe.autotune)};
  session.executor = make_executor(std::move(model), executor);
  return session;
}

std::optional<Dataset> open_test_data(const Recipe& recipe) {
  if (!recipe.test_data.empty()) return open_dataset(recipe.test_data, Split::test);
  if (std::filesystem::is_directory(recipe.data)) return open_dataset(recipe.data, Split::test);
  return std::nullopt;
}

Data open_data(const Recipe& recipe) {
  if (recipe.data.empty()) throw Error("no training data given: name it with --data or in the recipe");
  return {open_dataset(recipe.data, Split::train), open_test_data(recipe)};
}

}  // namespace halfstep
