#include "compiler/session.h"

#include <filesystem>
#include <tuple>

#include "base/error.h"
#include "runtime/cuda_probe.h"

namespace halfstep {

namespace {

Dataset open_set(const Recipe& recipe, const std::string& specification, Split split) {
  return recipe.objective == "labels" ? open_dataset(specification, split) : open_tokens(specification);
}

std::optional<Dataset> open_test_data(const Recipe& recipe) {
  if (!recipe.test_data.empty()) return open_set(recipe, recipe.test_data, Split::test);
  std::error_code unreadable;
  if (std::filesystem::is_directory(recipe.data, unreadable)) return open_set(recipe, recipe.data, Split::test);
  return std::nullopt;
}

}  // namespace

bool is_compiled_directory(const std::string& path) {
  std::error_code unreadable;
  return std::filesystem::is_regular_file(std::filesystem::path(path) / "manifest.json", unreadable);
}

Recipe recipe_of_step(const CompiledModel& model, const std::string& step) {
  const auto recipe = model.notes.find("recipe");
  if (recipe == model.notes.end())
    throw Error("compiled step '" + step + "' does not say what it was compiled with: compile the model again");
  Recipe compiled;
  read_recipe_text(compiled, recipe->second, "the recipe in '" + step + "'", "");
  return compiled;
}

Job open_job(const Recipe& given) {
  if (!is_compiled_directory(given.model)) return {given, std::nullopt};
  CompiledModel model = load_compiled(given.model);
  Recipe recipe = recipe_over_compiled(recipe_of_step(model, given.model), given, given.model);
  return {std::move(recipe), std::move(model)};
}

Session open_session(Job& job, const CompileOptions& options) {
  Session session;
  const DeviceKind device = job.compiled ? job.compiled->device : choose_device(job.recipe);
  if (device == DeviceKind::cuda)
    if (const CudaProbe cuda = probe_cuda(0); !cuda.available) throw Error(cuda.reason);
  if (!job.compiled) {
    CompileOptions settled = options;
    if (options.programs == TrainingPipelineOptions::training) settled.model_outputs = outputs_of_runs(job.recipe);
    CompiledTraining compiled = compile_training(job.recipe, device, settled);
    session.report = std::move(compiled.report);
    job.compiled = std::move(compiled.model);
  }
  if (const auto missing = job.compiled->notes.find(kMissingConstants);
      missing != job.compiled->notes.end() && options.constants == MissingConstants::refused)
    throw Error("the step was compiled without constants of its model: compile it again with them; " + missing->second);
  const ExecutorOptions executor{.threads = static_cast<int>(job.recipe.threads),
                                 .allow_tf32 = job.recipe.tf32,
                                 .device_index = 0,
                                 .autotune = static_cast<int>(job.recipe.autotune)};
  session.executor = make_executor(std::move(*job.compiled), executor);
  job.compiled.reset();
  return session;
}

Data open_data(const Recipe& recipe) {
  if (recipe.data.empty()) throw Error("no training data is given: name it with --data or in the recipe");
  Data data{open_set(recipe, recipe.data, Split::train), open_test_data(recipe)};
  if (recipe.test_fraction == 0) return data;
  if (data.test) throw Error("test_fraction: held-out data is named already: leave one of them out");
  std::tie(data.train, data.test) = split_tokens(data.train, recipe.test_fraction);
  return data;
}

Dataset open_evaluation_data(const Recipe& recipe) {
  if (recipe.test_data.empty() && recipe.data.empty())
    throw Error("no data is given: name it with --test_data or --data");
  if (std::optional<Dataset> test = open_test_data(recipe)) return std::move(*test);
  Dataset all = open_set(recipe, recipe.data, Split::test);
  return recipe.test_fraction > 0 ? split_tokens(all, recipe.test_fraction).second : all;
}

FeedOptions feed_options(const Recipe& recipe, const CompiledModel& model) {
  FeedOptions options;
  TokenObjective& tokens = options.tokens;
  tokens.kind = recipe.objective == "next_token"     ? Objective::next_token
                : recipe.objective == "masked_token" ? Objective::masked_token
                                                     : Objective::labels;
  tokens.ids = recipe.ids;
  if (tokens.kind != Objective::masked_token) return options;
  tokens.vocabulary = value_ranges(recipe, model).classes;
  if (!recipe.mask_token)
    throw Error("objective masked_token: give the token that stands for a hidden one as mask_token");
  if (*recipe.mask_token >= tokens.vocabulary)
    throw Error("mask_token: " + std::to_string(*recipe.mask_token) + " is outside the model's vocabulary of " +
                std::to_string(tokens.vocabulary));
  tokens.mask_token = *recipe.mask_token;
  tokens.mask_probability = recipe.mask_probability;
  if (recipe.special_tokens.empty()) return options;
  if (recipe.special_tokens.size() != 2 || recipe.special_tokens[0] > recipe.special_tokens[1])
    throw Error("special_tokens: FIRST,LAST expected, such as 0,103");
  tokens.first_special = recipe.special_tokens[0], tokens.last_special = recipe.special_tokens[1];
  return options;
}

ValueRanges value_ranges(const Recipe& recipe, const CompiledModel& model) {
  ValueRanges ranges = noted_ranges(model);
  if (const auto logits = model.notes.find(kClassesNote); logits != model.notes.end())
    check_classes(recipe, count_of(logits->second));
  if (recipe.classes > 0) ranges.classes = recipe.classes;
  ranges.ignored = recipe.ignore_index;
  return ranges;
}

}  // namespace halfstep
