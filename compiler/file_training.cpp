#include "compiler/file_training.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/error.h"
#include "compiler/compile.h"
#include "frontend/export/training_operators.h"
#include "frontend/onnx/foreign_training.h"
#include "frontend/onnx/training_operators.h"
#include "ir/op.h"
#include "passes/model/attach_loss.h"
#include "passes/training/bind_arenas.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

// For one name alone.
std::string pattern_of(const std::string& name) {
  std::string pattern;
  for (const char c : name) {
    if (std::string_view("*?[]\\").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

std::set<std::string> parameters_of(const Graph& graph) {
  std::set<std::string> names;
  for (const Node& node : graph.nodes())
    if (node.op->name == "parameter") names.insert(node.attributes.text("name"));
  return names;
}

// The weights that the file trains, by keys that say where the import would do otherwise.
void take_weights(Recipe& recipe, const TrainingOperators& file) {
  const std::set<std::string> trained(file.trained.begin(), file.trained.end());
  std::set<std::string> usual;
  try {
    usual = parameters_of(import_graph(recipe).graph);
  } catch (const Error&) {  // the command's own import tells
    return;
  }
  for (const std::string& name : trained)
    if (!usual.contains(name)) recipe.train.push_back(pattern_of(name)), recipe.given.insert("train");
  for (const std::string& name : usual)
    if (!trained.contains(name)) recipe.freeze.push_back(pattern_of(name)), recipe.given.insert("freeze");
}

void take(Recipe& recipe, const std::string& key, const std::string& value) {
  if (!recipe.given.contains(key)) set_key(recipe, key, value);
}

void take_keys(Recipe& recipe, const TrainingOperators& file) {
  take(recipe, "loss", file.loss);
  take(recipe, "output", file.output);
  if (file.class_axis) take(recipe, "class_axis", std::to_string(*file.class_axis));
  if (file.ignore_index) take(recipe, "ignore_index", std::to_string(*file.ignore_index));
  for (const auto& [key, values] : file.loss_parameters)
    take(recipe, key,
         find_loss_key(key)->kind == LossKey::yes_or_no ? "true" : fmt::format("{}", fmt::join(values, ",")));
  take(recipe, "optimizer", file.optimizer);
  const OptimizerRow* const row = find_optimizer(file.optimizer);
  for (const auto& [parameter, value] : file.parameters) {
    const std::string beside(row->find(parameter)->beside);
    if (beside.empty() || file.parameters.at(beside) != "0") take(recipe, parameter, value);  // else without effect
  }
  take(recipe, "weight_decay", file.weight_decay);
  if (file.learning_rate) take(recipe, "learning_rate", *file.learning_rate);
  if (recipe.given.contains("no_decay") || file.no_decay.empty()) return;
  for (const std::string& name : file.no_decay) recipe.no_decay.push_back(pattern_of(name));
  recipe.given.insert("no_decay");
}

// Keys that the operators have no word for.
void refuse_other_keys(const Recipe& recipe) {
  Problems problems;
  const auto expect = [&](bool holds, std::string_view key, std::string_view remedy) {
    if (!holds) problems.add(fmt::format("{}: training operators do not say it: {}", key, remedy));
  };
  expect(recipe.losses.empty(), "losses", "write --training-graph or --training-info, or train with one");
  const LossFunction& loss = *find_loss(recipe.loss);
  for (const auto& [key, values] : recipe.loss_parameters)
    expect(loss.element != nullptr || key == "class_weights" || !loss.reads(key) || values == std::vector{0.0}, key,
           "leave it out");
  expect(!recipe.ignore_index || loss.labels == LossFunction::classes || !loss.reads("ignore_index"), "ignore_index",
         "leave it out");
  expect(recipe.clip_norm == 0, "clip_norm", "leave it out");
  expect(recipe.clip_value == 0, "clip_value", "leave it out");
  expect(recipe.clip_adaptive == 0, "clip_adaptive", "leave it out");
  expect(recipe.groups.empty(), "groups", "leave it out");
  expect(recipe.unfreeze.empty(), "unfreeze", "give it to the run");
  expect(recipe.ema == 0, "ema", "give it to the run");
  expect(recipe.accumulation == 1, "accumulation", "give it to the run");
  expect(recipe.mixup == 0, "mixup", "give it to the run");
  expect(recipe.cutmix == 0, "cutmix", "give it to the run");
  expect(!recipe.dropout, "dropout", "give it to the run");
  expect(recipe.schedule == "constant" && recipe.warmup_steps == 0, "schedule", "give it to the run");
  expect(recipe.optimizer == "sgd" || recipe.optimizer == "adagrad" || recipe.optimizer == "onnx_adam", "optimizer",
         recipe.optimizer == "adam" || recipe.optimizer == "adamw"
             ? "ONNX's Adam places epsilon otherwise; take onnx_adam, or write --training-info"
             : "take sgd, adagrad or onnx_adam, or write --training-info");
  problems.throw_if_any();
}

}  // namespace

Recipe over_training_of_file(Recipe given) {
  if (given.given.contains("loss") || given.given.contains("losses") || given.given.contains("optimizer") ||
      !carries_training_step(std::filesystem::path(given.model)))
    return given;
  try {
    const TrainingOperators file = read_training_operators(onnx_model_of(given));
    take_keys(given, file);
    if (!given.given.contains("freeze") && !given.given.contains("train")) take_weights(given, file);
  } catch (const Error& error) {
    std::vector<std::string> problems;
    std::istringstream lines(error.what());
    for (std::string line; std::getline(lines, line);) problems.push_back(line);
    problems.push_back("name loss or optimizer, and the model is trained by the recipe instead of by its file");
    throw Error(std::move(problems));
  }
  return given;
}

Recipe over_training_of_file(const Recipe& given, std::nothrow_t) {
  try {
    return over_training_of_file(given);
  } catch (const Error&) {
    return given;
  }
}

void export_with_training(const Recipe& recipe, const std::filesystem::path& path,
                          const std::map<std::string, std::string>& metadata) {
  refuse_other_keys(recipe);
  const ImportedModel imported = import_graph(recipe);
  const TrainingPipelineOptions options = pipeline_options(recipe, imported);
  TrainingOperators training;
  training.loss = recipe.loss;
  training.output = recipe.output;
  if (training.output.empty() && imported.outputs.size() == 1) training.output = imported.outputs.front();
  training.class_axis = axis_of_classes(imported.graph, options.loss);
  if (!training.class_axis) training.class_axis = axis_of_lists(imported.graph, options.loss);
  training.ignore_index = recipe.ignore_index;
  for (const auto& [key, values] : recipe.loss_parameters)
    if (find_loss(recipe.loss)->reads(key) &&
        (find_loss_key(key)->kind == LossKey::list || find_loss(recipe.loss)->element))
      for (const double value : values) training.loss_parameters[key].push_back(fmt::format("{}", value));
  training.optimizer = recipe.optimizer;
  for (const HyperParameter& parameter : find_optimizer(recipe.optimizer)->parameters)
    training.parameters[std::string(parameter.name)] = find_key(std::string(parameter.name))->get(recipe);
  training.weight_decay = fmt::format("{}", recipe.weight_decay);
  training.learning_rate = fmt::format("{}", recipe.learning_rate);
  const ArenaLayout arenas = plan_arenas(imported.graph, {.weight_decay = 1, .no_decay = recipe.no_decay});
  for (const ArenaSlice& slice : arenas.slices) {
    training.trained.push_back(slice.name);
    if (arenas.segments[slice.segment].weight_decay == 0) training.no_decay.push_back(slice.name);
  }
  size_t rank = 0;
  for (const NamedValue& output : imported.graph.outputs())
    if (output.name.text == training.output) rank = imported.graph.type(output.value).shape.size();
  export_training_operators(onnx_model_of(recipe), training, rank, path, {.metadata = metadata});
}

}  // namespace halfstep
