#include "compiler/idle_keys.h"

#include <fmt/format.h>

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
      {{"momentum", "nesterov", "dampening"},
       [](const Recipe& r) { return r.optimizer != "sgd"; },
       [](const Recipe& r) { return "optimizer is " + r.optimizer; }},
      {{"nesterov", "dampening"},
       [](const Recipe& r) { return r.optimizer == "sgd" && r.momentum == 0; },
       [](const Recipe&) { return std::string("momentum is 0"); }},
      {{"beta1", "beta2", "epsilon"},
       [](const Recipe& r) { return r.optimizer == "sgd"; },
       [](const Recipe&) { return std::string("optimizer is sgd"); }},
      {{"no_decay"},
       [](const Recipe& r) { return r.weight_decay == 0; },
       [](const Recipe&) { return std::string("weight_decay is 0"); }},
      {{"label_smoothing", "class_axis", "ignore_index"},
       [](const Recipe& r) { return r.loss != "softmax_cross_entropy"; },
       [](const Recipe& r) { return "loss is " + r.loss; }},
      {{"ids", "test_fraction"},
       [](const Recipe& r) { return r.objective == "labels"; },
       [](const Recipe&) { return std::string("objective is labels"); }},
      {{"mask_token", "mask_probability", "special_tokens"},
       [](const Recipe& r) { return r.objective != "masked_token"; },
       [](const Recipe& r) { return "objective is " + r.objective; }},
      {{"initial_scale", "growth_factor", "backoff_factor", "growth_interval", "min_scale"},
       scales_nothing,
       [](const Recipe& r) { return fmt::format("in {} the loss is not scaled", r.precision); }},
      {{"growth_factor", "backoff_factor", "growth_interval", "min_scale"},
       [](const Recipe& r) { return r.loss_scale == "fixed"; },
       [](const Recipe&) { return std::string("loss_scale is fixed"); }},
      {{"gamma", "step_epochs"},
       [](const Recipe& r) { return r.schedule != "step"; },
       [](const Recipe& r) { return "schedule is " + r.schedule; }},
      {{"final_rate", "decay_steps"},
       [](const Recipe& r) { return r.schedule != "linear" && r.schedule != "cosine"; },
       [](const Recipe& r) { return "schedule is " + r.schedule; }},
      {{"preset", "allow", "deny", "infer"},
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

}  // namespace

std::vector<std::string> idle_keys(const Recipe& recipe) {
  std::vector<std::string> sentences;
  for (const IdleKeys& row : rows())
    for (const std::string& name : row.names)
      if (recipe.given.contains(name) && row.idle(recipe))
        sentences.push_back(fmt::format("{} has no effect: {}", name, row.reason(recipe)));
  return sentences;
}

}  // namespace halfstep
