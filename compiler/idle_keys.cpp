#include "compiler/idle_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/optimizers.h"
#include "training/learning_rate.h"
#include "training/recipe_losses.h"

namespace halfstep {
namespace {

struct IdleKeys {
  std::vector<std::string> names;
  bool (*idle)(const Recipe&);
  std::string (*reason)(const Recipe&);
};

bool scales_nothing(const Recipe& r) {
  return r.loss_scale == "none" || (r.loss_scale == "auto" && r.precision != "fp16");
}

const std::vector<IdleKeys>& rows() {
  static const std::vector<IdleKeys> table{
      {{"no_decay"},
       [](const Recipe& r) {
         return r.weight_decay == 0 &&
                std::ranges::none_of(r.groups, [](const RecipeGroup& g) { return g.weight_decay.value_or(0) > 0; });
       },
       [](const Recipe&) { return std::string("weight_decay is 0"); }},
      {{"loss", "output", "classes"},
       [](const Recipe& r) { return !r.losses.empty(); },
       [](const Recipe&) { return std::string("each of the losses has its own"); }},
      {{"loss_scales"},
       [](const Recipe& r) { return r.losses.empty(); },
       [](const Recipe&) { return std::string("there is one loss"); }},
      {{"ids"},
       [](const Recipe& r) { return r.objective == "labels"; },
       [](const Recipe&) { return std::string("objective is labels"); }},
      {{"sampling", "stratify", "augment"},
       [](const Recipe& r) { return r.objective != "labels"; },
       [](const Recipe& r) { return "objective is " + r.objective; }},
      {{"stratify"},
       [](const Recipe& r) { return r.objective == "labels" && r.test_fraction == 0 && r.folds == 0; },
       [](const Recipe&) { return std::string("neither test_fraction nor folds is given"); }},
      {{"fold"}, [](const Recipe& r) { return r.folds == 0; }, [](const Recipe&) { return std::string("folds is 0"); }},
      {{"crop_scale"},
       [](const Recipe& r) { return std::ranges::find(r.augment, "crop") == r.augment.end(); },
       [](const Recipe&) { return std::string("augment has no crop"); }},
      {{"resize"},
       [](const Recipe& r) { return r.image_fit == "stretch"; },
       [](const Recipe&) { return std::string("image_fit is stretch"); }},
      {{"mask_token", "mask_probability", "special_tokens"},
       [](const Recipe& r) { return r.objective != "masked_token"; },
       [](const Recipe& r) { return "objective is " + r.objective; }},
      {{"loss_scales"},
       [](const Recipe& r) { return !r.losses.empty() && (scales_nothing(r) || r.loss_scale == "fixed"); },
       [](const Recipe&) { return std::string("the loss scale does not move"); }},
      {{"initial_scale", "growth_factor", "backoff_factor", "growth_interval", "min_scale", "hysteresis"},
       scales_nothing,
       [](const Recipe& r) { return fmt::format("in {} the loss is not scaled", r.precision); }},
      {{"growth_factor", "backoff_factor", "growth_interval", "min_scale", "hysteresis"},
       [](const Recipe& r) { return r.loss_scale == "fixed"; },
       [](const Recipe&) { return std::string("loss_scale is fixed"); }},
      {{"consecutive_hysteresis"},
       [](const Recipe& r) { return r.hysteresis == 1; },
       [](const Recipe&) { return std::string("hysteresis is 1"); }},
      {{"preset", "policy", "allow", "deny", "infer", "nodes_to_exclude", "nodes_to_include", "op_types_to_exclude",
        "op_types_to_include", "data_max", "init_max", "max_depth_of_reduction", "calibration_data"},
       [](const Recipe& r) { return r.precision == "fp32"; },
       [](const Recipe&) { return std::string("precision is fp32"); }},
      {{"per_class"},
       [](const Recipe& r) { return r.measures.empty(); },
       [](const Recipe&) { return std::string("no measures are given"); }},
      {{"tensorboard_gradients"},
       [](const Recipe& r) { return !r.tensorboard; },
       [](const Recipe&) { return std::string("tensorboard is false"); }},
      {{"learning_rate"},
       // Groups' own rates are shares of it.
       [](const Recipe& r) {
         return r.schedule == "file" &&
                std::ranges::none_of(r.groups, [](const RecipeGroup& g) { return g.learning_rate.has_value(); });
       },
       [](const Recipe&) { return std::string("schedule is file"); }},
      {{"warmup_steps"},
       [](const Recipe& r) { return r.schedule == "file"; },
       [](const Recipe&) { return std::string("schedule is file"); }},
      {{"skipped_steps_count"},
       [](const Recipe& r) { return r.schedule == "constant" && r.warmup_steps == 0; },
       [](const Recipe&) { return std::string("the rate is constant"); }},
      {{"min_delta"},
       [](const Recipe& r) { return r.patience == 0; },
       [](const Recipe&) { return std::string("patience is 0"); }},
      {{"bn_after", "bn_epsilon"},
       [](const Recipe& r) { return !r.bn_insert; },
       [](const Recipe&) { return std::string("bn_insert is false"); }},
      {{"init_std"},
       [](const Recipe& r) { return r.init_scheme == "pytorch" || r.init_scheme == "xavier"; },
       [](const Recipe& r) { return "init_scheme is " + r.init_scheme; }},
      {{"init_scheme", "init_std"},
       [](const Recipe& r) { return r.init == "from_file" && r.fresh.empty() && r.resize_head == 0; },
       [](const Recipe&) { return std::string("no weight starts fresh: init is from_file"); }},
      {{"tf32", "autotune"},
       [](const Recipe& r) { return r.device == "cpu"; },
       [](const Recipe&) { return std::string("device is cpu"); }},
  };
  return table;
}

// Of the optimizers' parameters.
void add_idle_parameters(const Recipe& recipe, std::vector<std::string>& sentences) {
  const OptimizerRow& chosen = *find_optimizer(recipe.optimizer);
  for (const auto& [name, value] : recipe.optimizer_parameters) {
    const HyperParameter* read = chosen.find(name);
    if (!read)
      sentences.push_back(fmt::format("{} has no effect: optimizer is {}", name, chosen.name));
    else if (!read->beside.empty() && value_of(chosen, read->beside, recipe.optimizer_parameters) == 0)
      sentences.push_back(fmt::format("{} has no effect: {} is 0", name, read->beside));
  }
}

// Of keys that one schedule reads and another does not.
void add_idle_schedule_keys(const Recipe& recipe, std::vector<std::string>& sentences) {
  const ScheduleRow& chosen = *find_schedule(recipe.schedule);
  std::set<std::string_view> told;
  for (const ScheduleRow& row : learning_rate_schedules())
    for (const std::string_view name : row.keys)
      if (!chosen.reads(name) && recipe.given.contains(std::string(name)) && told.insert(name).second)
        sentences.push_back(fmt::format("{} has no effect: schedule is {}", name, chosen.name));
}

// Keys of losses that theirs does not read.
void add_idle_keys_of_losses(const Recipe& recipe, std::vector<std::string>& sentences) {
  for (const LossKey& key : loss_keys()) {
    if (!recipe.given.contains(std::string(key.name))) continue;
    if (!recipe.losses.empty())
      sentences.push_back(fmt::format("{} has no effect: each of the losses has its own", key.name));
    else if (!find_loss(recipe.loss)->reads(key.name))
      sentences.push_back(fmt::format("{} has no effect: loss is {}", key.name, recipe.loss));
  }
  for (size_t i = 0; i < recipe.losses.size(); ++i) {
    const OutputLoss& loss = recipe.losses[i].loss;
    for (const LossKey& key : loss_keys())
      if (!get_loss_key(loss, key, kListSeparator).empty() && !function_of(loss).reads(key.name))
        sentences.push_back(fmt::format("{} of loss {} has no effect: its kind is {}", key.name, i + 1, loss.kind));
  }
}

}  // namespace

std::vector<std::string> idle_keys(const Recipe& recipe) {
  std::vector<std::string> sentences;
  add_idle_parameters(recipe, sentences);
  add_idle_schedule_keys(recipe, sentences);
  add_idle_keys_of_losses(recipe, sentences);
  for (const IdleKeys& row : rows())
    for (const std::string& name : row.names)
      if (recipe.given.contains(name) && row.idle(recipe))
        sentences.push_back(fmt::format("{} has no effect: {}", name, row.reason(recipe)));
  return sentences;
}

}  // namespace halfstep
