#include "training/run_setup.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "data/split.h"
#include "data/table.h"
#include "runtime/cuda_probe.h"
#include "training/notes.h"

namespace halfstep {
namespace {

Dataset open_set(const Recipe& recipe, const std::string& specification, Split split, const DataFacts& facts) {
  return recipe.objective == "labels" ? open_dataset(specification, split, recipe, facts)
                                      : open_tokens(specification, recipe.tokenizer);
}

// The test part of a directory; token files have none.
bool holds_test_part(const Recipe& recipe) {
  return recipe.objective == "labels" && !recipe.data.empty() && has_test_part(recipe.data);
}

bool splits(const Recipe& recipe) { return recipe.test_fraction > 0 || recipe.folds > 0; }

// Arrays that may hold one class a sample.
std::vector<std::string> label_arrays(const Recipe& recipe) {
  std::vector<std::string> names;
  for (const LossTerm& loss : recipe.losses)
    if (const std::string name = label_input(loss.loss); !name.empty()) names.push_back(name);
  names.emplace_back("labels");
  return names;
}

// As the run began whose facts these are.
SplitOptions split_options(const Recipe& recipe, const DataFacts& facts) {
  if (recipe.test_fraction > 0 && recipe.folds > 0)
    throw Error("test_fraction and folds: both are given, and each says what is held out: leave one of them out");
  if (recipe.test_fraction >= 1) throw Error("test_fraction: below 1 expected, since something is to be trained on");
  SplitOptions options{.fraction = recipe.test_fraction,
                       .folds = recipe.folds,
                       .fold = recipe.fold,
                       .seed = facts.split_seed.value_or(static_cast<uint64_t>(recipe.seed)),
                       .stratified = recipe.stratify == "auto",
                       .labels = label_arrays(recipe)};
  if (const std::string is = options.text() + (options.stratified ? "" : ", stratify none");
      !facts.split.empty() && facts.split != is)
    throw Error(
        fmt::format("{}: the checkpoint's run held out {}: give the same, so that no sample is both trained and "
                    "tested on",
                    is, facts.split));
  return options;
}

Data split(Dataset all, const Recipe& recipe, const DataFacts& facts) {
  const SplitOptions options = split_options(recipe, facts);
  auto [train, test] = split_dataset(std::move(all), options);
  for (DataFacts* f : {&train.facts, &test.facts}) {
    f->split_seed = options.seed;
    f->split = options.text() + (options.stratified ? "" : ", stratify none");
  }
  return {std::move(train), std::move(test)};
}

// Named, or the part of a directory that has one, unless the recipe splits what it trains on.
std::optional<Dataset> open_test_data(const Recipe& recipe, const DataFacts& facts) {
  if (!recipe.test_data.empty()) {
    if (splits(recipe))
      throw Error(fmt::format("{}: held-out data is named already: leave one of them out",
                              recipe.folds > 0 ? "folds" : "test_fraction"));
    return open_set(recipe, recipe.test_data, Split::test, facts);
  }
  if (!splits(recipe) && holds_test_part(recipe)) return open_set(recipe, recipe.data, Split::test, facts);
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
  const DataFacts began = recipe.resume.empty() ? DataFacts() : read_data_facts(recipe.resume);
  if (!began.split.empty() && !splits(recipe))
    throw Error(
        fmt::format("the run of '{}' held out {}: give the same, so that no sample is both trained and tested on",
                    recipe.resume, began.split));
  Dataset all = open_set(recipe, recipe.data, Split::train, began);
  Data data = splits(recipe) && recipe.test_data.empty() ? split(std::move(all), recipe, began)
                                                         : Data{std::move(all), std::nullopt};
  if (!recipe.standardize.empty() && began.scalings.empty()) {
    if (!began.columns.empty())
      throw Error(fmt::format("standardize: the run of '{}' did not: leave it out", recipe.resume));
    data.train.facts.scalings = learn_scalings(data.train, recipe.standardize);
  }
  if (data.test)
    data.test->facts = data.train.facts;
  else
    data.test = open_test_data(recipe, data.train.facts);
  apply_scalings(data.train);
  if (data.test) apply_scalings(*data.test);
  return data;
}

void predict_given_data(Recipe& recipe) {
  recipe.test_data.clear();
  recipe.test_fraction = 0;
  recipe.folds = 0;
}

Dataset open_evaluation_data(const Recipe& recipe, const std::filesystem::path& checkpoint) {
  if (recipe.test_data.empty() && recipe.data.empty())
    throw Error("no data is given: name it with --test_data or --data");
  const bool learns = checkpoint.empty() && recipe.objective == "labels" && !recipe.data.empty() &&
                      (!recipe.test_data.empty() || splits(recipe) || holds_test_part(recipe)) && teaches(recipe.data);
  if (learns) {
    Recipe training = recipe;
    training.resume.clear();
    Data data = open_data(training);
    data.test->remarks.insert(data.test->remarks.begin(), data.train.remarks.begin(), data.train.remarks.end());
    return std::move(*data.test);
  }
  const DataFacts facts = checkpoint.empty() ? DataFacts() : read_data_facts(checkpoint);
  if (!recipe.standardize.empty() && facts.scalings.empty())
    throw Error(
        "standardize: only the training data says by what: name it with data and this with test_data, or give "
        "a checkpoint of the run that did");
  std::optional<Dataset> test = open_test_data(recipe, facts);
  if (!test) test = open_set(recipe, recipe.data, Split::test, facts);
  if (splits(recipe) && recipe.test_data.empty()) {
    Data parts = split(std::move(*test), recipe, facts);
    parts.test->remarks = std::move(parts.train.remarks);
    test = std::move(parts.test);
  }
  if (!test->facts.classes.empty() && checkpoint.empty())
    test->remarks.emplace_back(
        "the numbers of the classes are of this data alone: a checkpoint, or data and test_data, say those of the run");
  apply_scalings(*test);
  return std::move(*test);
}

FeedOptions feed_options(const Recipe& recipe, const CompiledModel& model) {
  FeedOptions options;
  options.labels = label_inputs(model.notes);
  TokenObjective& tokens = options.tokens;
  tokens.kind = recipe.objective == "next_token"     ? Objective::next_token
                : recipe.objective == "masked_token" ? Objective::masked_token
                                                     : Objective::labels;
  tokens.ids = recipe.ids;
  options.class_arrays = label_arrays(recipe);
  options.augment = recipe.augment, options.crop_scale = recipe.crop_scale;
  options.mix = {.mixup = recipe.mixup, .cutmix = recipe.cutmix};
  // What the graph makes 0.
  for (size_t c = 0; c < options.cutout_fill.size() && !recipe.mean.empty(); ++c) {
    const double mean = recipe.mean[recipe.mean.size() == 1 ? 0 : std::min(c, recipe.mean.size() - 1)];
    options.cutout_fill[c] =
        static_cast<uint8_t>(std::clamp(mean / recipe.scale.value_or(1.0 / 255) + 0.5, 0.0, 255.0));
  }
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

SampleOrder order_of(const Recipe& recipe) {
  if (recipe.sampling == "natural") return recipe.shuffle ? SampleOrder::shuffled : SampleOrder::as_stored;
  if (!recipe.shuffle)
    throw Error("sampling: balanced draws its samples in a new order each epoch: leave shuffle = false out");
  if (recipe.objective != "labels") throw Error("sampling: a stream of tokens has no classes: leave balanced out");
  return SampleOrder::balanced;
}

TrainOptions train_options(const Recipe& r, const CompiledModel& model, const SignalGuard& signals) {
  TrainOptions o;
  o.epochs = r.epochs, o.max_steps = r.max_steps, o.accumulation = r.accumulation;
  o.seed = static_cast<uint64_t>(r.seed);
  o.order = order_of(r);
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
  o.gradients = r.tensorboard && r.tensorboard_gradients;
  return o;
}

}  // namespace halfstep
