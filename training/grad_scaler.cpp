#include "training/grad_scaler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "program/json_text.h"
#include "training/checkpoint.h"
#include "training/recipe_keys.h"
#include "training/run_setup.h"

namespace halfstep {
namespace {

using Json = nlohmann::ordered_json;

// PyTorch's keys in its order, and the recipe's for the same.
struct Number {
  const char* name;
  const char* key;
  double GradScalerState::* value;
};
constexpr Number kNumbers[] = {{"scale", "initial_scale", &GradScalerState::scale},
                               {"growth_factor", "growth_factor", &GradScalerState::growth_factor},
                               {"backoff_factor", "backoff_factor", &GradScalerState::backoff_factor}};
struct Count {
  const char* name;
  int64_t least;
  int64_t GradScalerState::* value;
};
constexpr Count kCounts[] = {{"growth_interval", 1, &GradScalerState::growth_interval},
                             {"_growth_tracker", 0, &GradScalerState::growth_tracker}};
constexpr int64_t kMostCounted = std::numeric_limits<int32_t>::max();

bool is_known(const std::string& name) {
  return std::ranges::any_of(kNumbers, [&](const Number& n) { return name == n.name; }) ||
         std::ranges::any_of(kCounts, [&](const Count& c) { return name == c.name; });
}

double within(double found, const Number& number) {
  const RecipeKey& key = *find_key(number.key);
  if (!(found >= key.least && found <= key.most))
    throw Error(
        fmt::format("'{}': a number from {:g} to {:g} expected, found {}", number.name, key.least, key.most, found));
  return found;
}

int64_t within(int64_t found, const Count& count) {
  if (found < count.least || found > kMostCounted)
    throw Error(fmt::format("'{}': a whole number from {} to {} expected, found {}", count.name, count.least,
                            kMostCounted, found));
  return found;
}

double value_in(const nlohmann::json& value, const Number& number) {
  if (!value.is_number()) throw Error(fmt::format("'{}': a number expected, found {}", number.name, value.dump()));
  return within(value.get<double>(), number);
}

int64_t value_in(const nlohmann::json& value, const Count& count) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{kMostCounted})
    throw Error(fmt::format("'{}': a whole number from {} to {} expected, found {}", count.name, count.least,
                            kMostCounted, value.dump()));
  return within(value.get<int64_t>(), count);
}

// The step's own value of a key, as text.
std::string compiled_value(const CompiledModel& model, const char* key) {
  const auto found = model.notes.recipe.find(key);
  return found == model.notes.recipe.end() ? find_key(key)->get(Recipe()) : found->second;
}

// The factors as the step was compiled; a compiled step's notes may be anyone's.
GradScalerState compiled_factors(const CompiledModel& model) {
  Recipe recipe;
  for (const char* key : {"growth_factor", "backoff_factor", "growth_interval"})
    set_key(recipe, key, compiled_value(model, key));
  return {.growth_factor = recipe.growth_factor,
          .backoff_factor = recipe.backoff_factor,
          .growth_interval = recipe.growth_interval};
}

double floor_of(const CompiledModel& model) {
  Recipe recipe;
  set_key(recipe, "min_scale", compiled_value(model, "min_scale"));
  return recipe.min_scale;
}

constexpr const char* kNotDynamic =
    "the step has no dynamic loss scale: compile it in fp16, or with loss_scale dynamic";

// Empty: there is none, and loading the checkpoint says why.
std::filesystem::path grad_scaler_of_checkpoint(const std::filesystem::path& resume) {
  const std::vector<CheckpointEntry> entries = list_checkpoints(resume);
  const std::filesystem::path file = (entries.empty() ? resume : entries.front().path) / "grad_scaler.json";
  std::error_code failed;
  return std::filesystem::exists(file, failed) ? file : std::filesystem::path();
}

// A scale of the step: whose it is, and the names of its states.
struct Scale {
  std::string loss;  // "": of all
  Name scale, tracker, hysteresis;
};
std::vector<Scale> scales_of(const CompiledModel& model) {
  if (model.state.contains(kLossScaleState)) return {{"", kLossScaleState, kLossScaleTracker, kLossScaleHysteresis}};
  std::vector<Scale> scales;
  for (size_t i = 0; i < model.notes.losses.size(); ++i)
    if (model.state.contains(of_loss(kLossScaleState, i)))
      scales.push_back({model.notes.losses[i].name, of_loss(kLossScaleState, i), of_loss(kLossScaleTracker, i),
                        of_loss(kLossScaleHysteresis, i)});
  return scales;
}

GradScalerState state_from(const nlohmann::json& json, const std::string& where, Problems& problems) {
  GradScalerState state;
  const auto read = [&](const auto& rows) {
    for (const auto& row : rows) try {
        if (!json.contains(row.name)) throw Error(fmt::format("'{}' is missing", row.name));
        state.*row.value = value_in(json.at(row.name), row);
      } catch (const Error& e) {
        problems.add(where + ": " + e.what());
      }
  };
  read(kNumbers);
  read(kCounts);
  for (const auto& [name, value] : json.items())
    if (!is_known(name)) problems.add(where + ": PyTorch's GradScaler has no '" + name + "' in its state");
  return state;
}

Json json_of(const GradScalerState& state) {
  Json json;
  for (const Number& number : kNumbers) json[number.name] = state.*number.value;
  for (const Count& count : kCounts) json[count.name] = state.*count.value;
  return json;
}

// Everything that stands against a state in this step.
void check_state(const CompiledModel& model, const GradScalerState& state, const std::string& where,
                 Problems& problems) {
  const GradScalerState compiled = compiled_factors(model);
  const auto check = [&](const auto& rows) {
    bool good = true;
    for (const auto& row : rows) try {
        within(state.*row.value, row);
      } catch (const Error& e) {
        problems.add(where + ": " + e.what());
        good = false;
      }
    return good;
  };
  const bool numbers = check(kNumbers), counts = check(kCounts);
  if (!numbers || !counts) return;
  const auto compare = [&](const char* name, auto given, auto step) {
    if (given != step)
      problems.add(fmt::format("{}: '{}' is {}, the step was compiled with {}: compile it with {} {}", where, name,
                               given, step, name, given));
  };
  compare("growth_factor", state.growth_factor, compiled.growth_factor);
  compare("backoff_factor", state.backoff_factor, compiled.backoff_factor);
  compare("growth_interval", state.growth_interval, compiled.growth_interval);
  if (const double floor = floor_of(model); state.scale < floor)
    problems.add(fmt::format("{}: 'scale' is {}, below the step's floor: compile it with min_scale {}, not {}", where,
                             state.scale, state.scale, floor));
}

}  // namespace

bool has_loss_scale(const CompiledModel& model) { return !scales_of(model).empty(); }

std::vector<std::string> losses_with_scale(const CompiledModel& model) {
  std::vector<std::string> names;
  for (const Scale& scale : scales_of(model)) names.push_back(scale.loss);
  return names;
}

GradScalers read_grad_scalers(const std::filesystem::path& path) {
  constexpr int64_t kMostBytes = 1 << 16;
  const std::string where = "grad_scaler '" + path.string() + "'";
  const nlohmann::json json = parse_json(read_file(path, kMostBytes));
  if (!json.is_object()) throw Error(where + ": no JSON object, as json.dump(scaler.state_dict(), file) writes");
  if (json.empty()) throw Error(where + ": it is empty, the state of a scaler that was not enabled");
  Problems problems;
  GradScalers states;
  if (std::ranges::all_of(json, [](const nlohmann::json& value) { return value.is_object(); }))
    for (const auto& [loss, state] : json.items())
      states[loss] = state_from(state, fmt::format("{}, loss '{}'", where, loss), problems);
  else
    states[""] = state_from(json, where, problems);
  problems.throw_if_any();
  return states;
}

std::string to_json(const GradScalers& states) {
  if (states.size() == 1 && states.begin()->first.empty()) return json_of(states.begin()->second).dump(1) + "\n";
  Json json;
  for (const auto& [loss, state] : states) json[loss] = json_of(state);
  return json.dump(1) + "\n";
}

std::optional<GradScalers> grad_scalers_of(const CompiledModel& model, const FileTensors& slots) {
  GradScalers states;
  for (const Scale& scale : scales_of(model)) {
    const auto value = slots.find(scale.scale.text), tracker = slots.find(scale.tracker.text);
    if (value == slots.end() || tracker == slots.end()) return std::nullopt;
    GradScalerState& state = states[scale.loss] = compiled_factors(model);
    state.scale = value->second.at(0), state.growth_tracker = static_cast<int64_t>(tracker->second.at(0));
  }
  return states.empty() ? std::nullopt : std::optional(states);
}

GradScalers read_grad_scalers(Executor& executor) {
  GradScalers states;
  for (const Scale& scale : scales_of(executor.model())) {
    GradScalerState& state = states[scale.loss] = compiled_factors(executor.model());
    state.scale = executor.read_state(scale.scale).at(0);
    state.growth_tracker = static_cast<int64_t>(executor.read_state(scale.tracker).at(0));
  }
  if (states.empty()) throw Error(kNotDynamic);
  return states;
}

GradScalerState read_grad_scaler(Executor& executor) {
  const GradScalers states = read_grad_scalers(executor);
  if (!states.contains(""))
    throw Error(
        "each loss of the step has a scale of its own (loss_scales each): ask for all of them (read_grad_scalers)");
  return states.at("");
}

void write_grad_scalers(Executor& executor, const GradScalers& states, const std::string& where) {
  const std::vector<Scale> scales = scales_of(executor.model());
  if (scales.empty()) throw Error(where + ": " + kNotDynamic);
  const bool for_all = states.size() == 1 && states.contains("");
  const auto of = [&](const std::string& loss) { return for_all ? where : fmt::format("{}, loss '{}'", where, loss); };
  Problems problems;
  for (const auto& [loss, state] : states) {
    check_state(executor.model(), state, of(loss), problems);
    if (!for_all && std::ranges::find(scales, loss, &Scale::loss) == scales.end())
      problems.add(of(loss) + ": no loss of the step has that name and a scale of its own");
  }
  for (const Scale& scale : scales)
    if (!for_all && !states.contains(scale.loss))
      problems.add(scale.loss.empty()
                       ? where + ": the step has one scale for all its losses: compile it with loss_scales each"
                       : fmt::format("{}: that of loss '{}' is missing", where, scale.loss));
  problems.throw_if_any();
  for (const Scale& scale : scales) {
    const GradScalerState& state = states.at(for_all ? "" : scale.loss);
    executor.write_state(scale.scale, Tensor::scalar(DType::f32, state.scale));
    executor.write_state(scale.tracker, Tensor::scalar(DType::i32, static_cast<double>(state.growth_tracker)));
    if (const auto full = executor.model().state.find(scale.hysteresis); full != executor.model().state.end())
      executor.write_state(scale.hysteresis, full->second);
  }
}

void take_grad_scaler(Recipe& recipe) {
  if (recipe.grad_scaler.empty() || is_compiled_directory(recipe.model)) return;
  const bool resumed = !recipe.resume.empty();
  const std::string path = resumed ? grad_scaler_of_checkpoint(recipe.resume).string() : recipe.grad_scaler;
  if (path.empty()) return;
  const GradScalers states = read_grad_scalers(path);
  const GradScalerState& state = states.begin()->second;
  Problems problems;
  const auto take = [&](const char* key, auto& value, auto wanted) {
    if (recipe.given.contains(key) && value != wanted)
      problems.add(
          fmt::format("{}: {} is given, but grad_scaler '{}' has {}: leave one of them out", key, value, path, wanted));
    value = wanted;
  };
  // Those of each loss the run writes into its states.
  if (!resumed && states.size() == 1) take("initial_scale", recipe.initial_scale, state.scale);
  for (const auto& [loss, other] : states)
    if (std::tuple(other.growth_factor, other.backoff_factor, other.growth_interval) !=
        std::tuple(state.growth_factor, state.backoff_factor, state.growth_interval))
      problems.add(fmt::format("grad_scaler '{}': losses '{}' and '{}' differ in more than scale and tracker", path,
                               states.begin()->first, loss));
  take("growth_factor", recipe.growth_factor, state.growth_factor);
  take("backoff_factor", recipe.backoff_factor, state.backoff_factor);
  take("growth_interval", recipe.growth_interval, state.growth_interval);
  for (const auto& [loss, each] : states)
    if (!resumed && each.scale < recipe.min_scale)
      problems.add(fmt::format("min_scale: the loss scale of grad_scaler '{}' is {}: give min_scale {} at most", path,
                               each.scale, each.scale));
  problems.throw_if_any();
}

}  // namespace halfstep
