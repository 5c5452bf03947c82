#include "compiler/idle_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/optimizers.h"
#include "training/learning_rate.h"

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
       [](const Recipe& r) { return r.weight_decay == 0; },
       [](const Recipe&) { return std::string("weight_decay is 0"); }},
      {{"loss", "output", "label_smoothing", "class_axis", "ignore_index", "classes"},
       [](const Recipe& r) { return !r.losses.empty(); },
       [](const Recipe&) { return std::string("each of the losses has its own"); }},
      {{"label_smoothing", "class_axis", "ignore_index"},
       [](const Recipe& r) { return r.losses.empty() && r.loss != "softmax_cross_entropy"; },
       [](const Recipe& r) { return "loss is " + r.loss; }},
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
      {{"bn_after", "bn_epsilon"},
       [](const Recipe& r) { return !r.bn_insert; },
       [](const Recipe&) { return std::string("bn_insert is false"); }},
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

// Of one of several losses.
void add_idle_keys_of_losses(const Recipe& recipe, std::vector<std::string>& sentences) {
  for (size_t i = 0; i < recipe.losses.size(); ++i) {
    const RecipeLoss& loss = recipe.losses[i];
    const auto add = [&](bool given, const char* key) {
      if (given && loss.kind != "softmax_cross_entropy")
        sentences.push_back(fmt::format("{} of loss {} has no effect: its kind is {}", key, i + 1, loss.kind));
    };
    add(loss.label_smoothing != 0, "label_smoothing");
    add(loss.class_axis.has_value(), "class_axis");
    add(loss.ignore_index.has_value(), "ignore_index");
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
