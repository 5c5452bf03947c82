#include "training/run_setup.h"

#include <fmt/format.h>

#include <tuple>

#include "base/error.h"
#include "runtime/cuda_probe.h"
#include "training/notes.h"

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

namespace {

// With what is also wrong with the model, which is looked at later.
[[noreturn]] void refuse_without_data(const Recipe& recipe) {
  std::vector<std::string> problems;
  if (recipe.model.empty())
    problems.emplace_back("no model is given: name an ONNX file, or a recipe with the key 'model'");
  else if (std::error_code unreadable; !std::filesystem::exists(recipe.model, unreadable))
    problems.push_back("cannot open '" + recipe.model + "': No such file or directory");
  problems.emplace_back("no training data is given: name it with --data or in the recipe");
  throw Error(std::move(problems));
}

}  // namespace

Data open_data(const Recipe& recipe) {
  if (recipe.data.empty()) refuse_without_data(recipe);
  Data data{open_set(recipe, recipe.data, Split::train), open_test_data(recipe)};
  if (recipe.test_fraction == 0) return data;
  if (data.test) throw Error("test_fraction: held-out data is named already: leave one of them out");
  std::tie(data.train, data.test) = split_tokens(data.train, recipe.test_fraction);
  return data;
}

void predict_given_data(Recipe& recipe) {
  recipe.test_data.clear();
  recipe.test_fraction = 0;
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
  options.labels = label_inputs(model.notes);
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

MeasureOptions measure_options(const Recipe& recipe) {
  MeasureOptions options{.names = recipe.measures, .per_class = recipe.per_class};
  if (!recipe.class_names.empty() && !recipe.measures.empty())
    options.class_names = read_class_names(recipe.class_names, 0);
  return options;
}

ValueRanges value_ranges(const Recipe& recipe, const CompiledModel& model) {
  ValueRanges ranges = noted_ranges(model.notes);
  if (model.notes.classes) check_classes(recipe, *model.notes.classes);
  if (recipe.classes > 0) ranges.classes = recipe.classes;
  ranges.ignored = recipe.ignore_index;
  return ranges;
}

void check_classes(const Recipe& recipe, int64_t logits) {
  if (recipe.classes > logits)
    throw Error(
        fmt::format("classes: {} are given, but the output has {}: give at most that many, or choose the axis "
                    "of the classes with class_axis",
                    recipe.classes, logits));
}

std::optional<double> fixed_scale(const Recipe& recipe) {
  if (recipe.loss_scale == "fixed") return recipe.initial_scale;
  // Only fp16 underflows; the exponents of bf16 and fp32 reach as far as the gradients do. They are checked all the
  // same: a step whose gradients are not finite changes nothing.
  if (recipe.loss_scale == "auto" && recipe.precision != "fp16") return 1;
  return std::nullopt;
}

void expect_device(DeviceKind device) {
  if (device != DeviceKind::cuda) return;
  if (const CudaProbe cuda = probe_cuda(0); !cuda.available) throw Error(cuda.reason);
}

void refuse_missing_constants(const CompiledModel& model) {
  if (const std::string& missing = model.notes.missing_constants; !missing.empty())
    throw Error("the step was compiled without constants of its model: compile it again with them; " + missing);
}

ExecutorOptions executor_options(const Recipe& recipe) {
  return {.threads = static_cast<int>(recipe.threads),
          .allow_tf32 = recipe.tf32,
          .device_index = 0,
          .autotune = static_cast<int>(recipe.autotune)};
}

LearningRateSchedule schedule_of(const Recipe& r) {
  LearningRateSchedule s;
  s.kind = r.schedule, s.learning_rate = r.learning_rate, s.warmup_steps = r.warmup_steps;
  s.step_epochs = r.step_epochs, s.gamma = r.gamma, s.final_rate = r.final_rate, s.decay_steps = r.decay_steps;
  s.milestones = r.milestones, s.restart_epochs = r.restart_epochs, s.restart_factor = r.restart_factor;
  s.power = r.power, s.rise_fraction = r.rise_fraction, s.rise_factor = r.rise_factor, s.fall_factor = r.fall_factor;
  s.phases = r.three_phases ? LearningRateSchedule::three : LearningRateSchedule::two;
  if (r.schedule == "file" && !r.schedule_file.empty()) s.points = read_schedule_file(r.schedule_file);
  return s;
}

TrainOptions train_options(const Recipe& r, const CompiledModel& model, const SignalGuard& signals) {
  TrainOptions o;
  o.epochs = r.epochs, o.max_steps = r.max_steps, o.accumulation = r.accumulation;
  o.seed = static_cast<uint64_t>(r.seed);
  o.order = r.shuffle ? SampleOrder::shuffled : SampleOrder::as_stored;
  o.schedule = schedule_of(r);
  o.skipped = r.skipped_steps_count ? TrainOptions::advance_the_schedule : TrainOptions::hold_the_schedule;
  o.plateau = {.measure = r.plateau_measure,
               .patience = r.plateau_patience,
               .cooldown = r.plateau_cooldown,
               .threshold = r.plateau_threshold};
  o.best = {.measure = r.best, .patience = r.patience, .min_delta = r.min_delta};
  o.evaluated = r.ema_weights ? WeightsKind::average : WeightsKind::last;
  o.feed = feed_options(r, model);
  o.ranges = value_ranges(r, model);
  std::optional<double> fixed = fixed_scale(r);
  // A preset without loss scaling: nothing of it is in the step.
  if (!fixed && r.loss_scale == "auto" && !has_loss_scale(model)) fixed = 1;
  o.min_scale = fixed.value_or(r.min_scale);  // a fixed scale has nowhere to go
  o.skip_limit = r.skip_limit;
  if (!r.grad_scaler.empty() && r.resume.empty()) o.grad_scaler = read_grad_scalers(r.grad_scaler);
  o.overflow_limit = fixed == 1.0 ? 1 : r.overflow_limit;  // without a scale it is no matter of range
  o.checkpoints = {.directory = std::filesystem::path(r.out) / "checkpoints",
                   .every_steps = r.checkpoint_every,
                   .keep = static_cast<int>(r.keep)};
  o.resume = r.resume;
  o.signals = &signals;
  o.measures = measure_options(r);
  return o;
}

}  // namespace halfstep
