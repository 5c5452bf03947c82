// What a recipe says of a run: its data, how that is fed, and the trainer's options.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "data/data_feed.h"
#include "runtime/executor.h"
#include "training/recipe.h"
#include "training/trainer.h"

namespace halfstep {

bool is_compiled_directory(const std::string& path);

struct Data {
  Dataset train;
  std::optional<Dataset> test;
};
// What the recipe calls data and test_data, or splits off by test_fraction or folds. A run that resumes sees its data
// as it began: Error where that contradicts the recipe.
Data open_data(const Recipe& recipe);
// For predictions of the data that a command names: what a recipe holds out does not stand in its place.
void predict_given_data(Recipe& recipe);
// The held-out set, or all of the data where none is named; as the run saw it that wrote `checkpoint`, or, empty, as
// one would that trained on the recipe's data.
Dataset open_evaluation_data(const Recipe& recipe, const std::filesystem::path& checkpoint = {});

// What evaluations measure; Error where the names of classes cannot be read.
MeasureOptions measure_options(const Recipe& recipe);

// How data is fed to the programs of `model`, and what its values are checked against.
FeedOptions feed_options(const Recipe& recipe, const CompiledModel& model);
ValueRanges value_ranges(const Recipe& recipe, const CompiledModel& model);
// Error if the recipe has more classes than the model's output.
void check_classes(const Recipe& recipe, int64_t logits);

// The loss scale that stays as it is; nullopt: it is dynamic, or there is none.
std::optional<double> fixed_scale(const Recipe& recipe);

// Error where the device is not there.
void expect_device(DeviceKind device);
// Error where constants of the step were missing as it was compiled, and zeros stand for them.
void refuse_missing_constants(const CompiledModel& model);
ExecutorOptions executor_options(const Recipe& recipe);
// Reads the schedule's file, if it has one.
LearningRateSchedule schedule_of(const Recipe& recipe);
TrainOptions train_options(const Recipe& recipe, const CompiledModel& model, const SignalGuard& signals);

}  // namespace halfstep
