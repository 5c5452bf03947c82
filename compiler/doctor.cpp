#include "compiler/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "compiler/doctor_judge.h"
#include "compiler/minimise.h"
#include "passes/precision/presets.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

DType low_of(const Recipe& recipe) { return recipe.precision == "bf16" ? DType::bf16 : DType::f16; }
double rounding(DType low) { return low == DType::f16 ? 0x1p-11 : 0x1p-8; }

Recipe in_fp32(Recipe recipe) {
  const Recipe plain;  // none of the rules of a low type
  recipe.precision = "fp32", recipe.loss_scale = "none", recipe.preset = plain.preset, recipe.policy.clear();
  recipe.allow.clear(), recipe.deny.clear(), recipe.infer.clear();
  recipe.nodes_to_exclude.clear(), recipe.nodes_to_include.clear();
  recipe.op_types_to_exclude.clear(), recipe.op_types_to_include.clear();
  recipe.data_max.reset(), recipe.init_max.reset(), recipe.max_depth_of_reduction.reset();
  recipe.calibration_data.clear();
  return recipe;
}

// Three times what rounding the weights once does to the fp32 run, and a hundredth (bf16: four) of the loss at least.
LossBand band_of(const RunOfSteps& reference, const std::vector<RunOfSteps>& disturbed, DType low) {
  LossBand band;
  std::vector<double> spread(reference.losses.size(), 0);
  for (const RunOfSteps& run : disturbed)
    for (size_t i = 0; i < std::min(spread.size(), run.losses.size()); ++i)
      spread[i] = std::max(spread[i], std::abs(run.losses[i] - reference.losses[i]));
  const double share = low == DType::f16 ? 0.01 : 0.04;
  double widest = 0;
  for (size_t i = 0; i < spread.size(); ++i) {
    widest = std::max(widest, spread[i]);
    band.allowed.push_back(
        std::max(3 * widest, share * std::abs(reference.losses[i]) + 1e-4 * std::abs(reference.losses[0])));
  }
  band.criterion = fmt::format(
      "at every step the loss is within 3 times the spread of {} fp32 runs whose weights are disturbed by half a unit "
      "of {} in the last place (the widest so far), or {:g}% of the fp32 loss, whichever is more",
      disturbed.size(), name(low), share * 100);
  return band;
}

// The preset that rounds its weights after each update, and the one that is the same with fp32 ones.
bool keeps_no_masters(const Recipe& recipe) {
  return recipe.policy.empty() && find_preset(recipe.preset).masters == Preset::rounded;
}
constexpr std::string_view kWithMasters = "apex-o2";

// The user's nodes that read or write the low type.
std::vector<std::string> low_nodes(const CompileReport& report) {
  std::vector<std::string> nodes;
  std::set<std::string> seen;
  for (const PrecisionRow& row : report.precision) {
    const std::string& node = row.origin.name;
    const bool is_of_user = std::ranges::find(report.onnx_nodes, node, &OnnxNode::name) != report.onnx_nodes.end();
    if (is_of_user && (is_low(row.result) || is_low(row.operand)) && seen.insert(node).second) nodes.push_back(node);
  }
  return nodes;
}

class Doctor {
 public:
  Doctor(Recipe recipe, DeviceKind device, const Batches& batches, const DoctorOptions& options)
      : recipe_(std::move(recipe)), device_(device), batches_(batches), options_(options), judge_(low_of(recipe_)) {
    options_.taps.low = low_of(recipe_);
  }

  Diagnosis run() {
    Diagnosis d;
    d.recipe = recipe_, d.device = device_, d.bins = tap_bins(options_.taps.low);
    const Reference& fp32 = reference(recipe_.learning_rate);
    if (!fp32.full.stuck.empty())
      throw Error(fp32.full.stuck +
                  " in fp32 either: no precision is at fault; look at the learning rate, the data and the "
                  "initial weights");
    d.band = fp32.band;
    options_.progress(recipe_.precision);
    d.before = examine(recipe_);
    judge_.fit_scale(d.before.full, d.before.low, d.fitting_scale, d.limiting_tensor);
    fitting_ = d.fitting_scale;
    for (const Symptom& f : d.before.findings) options_.progress(fmt::format("found: {}", f.text));
    if (!d.before.findings.empty()) d.remedy = find_remedy(d.before);
    return d;
  }

 private:
  // The fp32 runs at the recipe's learning rate, which a remedy may change.
  struct Reference {
    RunOfSteps full;
    LossBand band;
    TensorErrors spread;
  };
  const Reference& reference(double learning_rate) {
    const auto known = references_.find(learning_rate);
    if (known != references_.end()) return known->second;
    Recipe recipe = in_fp32(recipe_);
    recipe.learning_rate = learning_rate;
    Reference made;
    options_.progress("fp32");
    const MeasuredStep step(recipe, device_, options_.taps);
    made.full = step.run(batches_);
    if (!made.full.stuck.empty()) return references_.emplace(learning_rate, std::move(made)).first->second;
    options_.progress("the spread of fp32");
    std::vector<RunOfSteps> disturbed;
    for (int k = 0; k < options_.disturbed_runs; ++k) {
      const MeasuredStep::Disturbance by{static_cast<uint64_t>(k) + 1, rounding(options_.taps.low)};
      disturbed.push_back(step.run(batches_, by));
      judge_.widen(made.spread, made.full, disturbed.back());
    }
    made.band = band_of(made.full, disturbed, options_.taps.low);
    return references_.emplace(learning_rate, std::move(made)).first->second;
  }

  Examination examine(const Recipe& recipe) {
    const Reference& fp32 = reference(recipe.learning_rate);
    const MeasuredStep step(recipe, device_, options_.taps);
    if (low_nodes_.empty()) low_nodes_ = low_nodes(step.report());
    Examination e;
    e.full = fp32.full, e.low = step.run(batches_);
    e.differences = judge_.differences(e.full, e.low, fp32.spread);
    e.findings = judge_.findings(e, fp32.band, step.model());
    return e;
  }

  // Settings before rules: gradients beyond what the type holds want another scale, not fp32, and updates that weights
  // of the low type do not notice want fp32 ones. Whether there is something new.
  bool propose(const Examination& e, Remedy& remedy, std::set<std::string>& denied) {
    if (remedy.settings.empty()) propose_settings(e, remedy);
    const bool had_settings = settings_tried_;
    settings_tried_ = !remedy.settings.empty();
    if (settings_tried_ != had_settings) return true;
    const size_t before = remedy.denied.size();
    const auto deny = [&](const std::string& node, const std::string& why) {
      if (!node.empty() && node != "loss" && denied.insert(node).second) remedy.denied.push_back({node, why});
    };
    for (const Symptom& f : e.findings)
      for (const std::string& node : f.deny) deny(node, f.text);
    // A node in fp32 does not help that reads what was rounded before it: what it is computed of, twice as far each
    // time.
    if (remedy.denied.size() == before) {
      for (const Symptom& f : e.findings)
        for (const std::string& node : behind(e.low, f.tensor, reach_)) deny(node, "feeds what follows: " + f.text);
      reach_ *= 2;
    }
    // No tensor says which: all that are low, of which most will be left out again.
    if (remedy.denied.size() == before && !e.is_sound())
      for (const std::string& node : low_nodes_) deny(node, "among those without which training does not match fp32");
    return remedy.denied.size() > before;
  }

  void propose_settings(const Examination& e, Remedy& remedy) const {
    const auto has = [&](Symptom::Kind kind, auto... directions) {
      return std::ranges::any_of(e.findings, [&](const Symptom& f) {
        return f.kind == kind && !f.in_fp32 && ((f.direction == directions) || ...);
      });
    };
    const bool is_dynamic = loss_scaling(recipe_).mode == LossScaleMode::dynamic;
    const bool vanishes = has(Symptom::underflow, Tap::backward, Tap::gradient);
    const bool explodes = has(Symptom::overflow, Tap::backward, Tap::gradient) ||
                          has(Symptom::limits_scale, Tap::forward, Tap::backward, Tap::gradient);
    if (low_of(recipe_) == DType::f16 && fitting_ && (vanishes || (explodes && !is_dynamic))) {
      if (!is_dynamic) remedy.settings.emplace_back("loss_scale", "dynamic");
      if (!is_dynamic || *fitting_ > recipe_.initial_scale)
        remedy.settings.emplace_back("initial_scale", fmt::format("{:.0f}", *fitting_));
    }
    if (has(Symptom::update_vanishes, Tap::update) && keeps_no_masters(recipe_))
      remedy.settings.emplace_back("preset", std::string(kWithMasters));
  }

  // Nodes whose values the tensor is computed of, so many steps back.
  static std::vector<std::string> behind(const RunOfSteps& run, int32_t tensor, int steps) {
    std::vector<std::string> nodes;
    std::set<int32_t> seen{tensor}, ring{tensor};
    for (int step = 0; tensor >= 0 && step < steps && !ring.empty(); ++step) {
      std::set<int32_t> next;
      for (const int32_t at : ring)
        for (const int32_t input : run.tensors[static_cast<size_t>(at)].tap.inputs)
          if (seen.insert(input).second) next.insert(input);
      for (const int32_t at : next) nodes.push_back(run.tensors[static_cast<size_t>(at)].tap.node);
      ring = std::move(next);
    }
    return nodes;
  }

  bool is_healthy(Remedy& remedy, const Remedy& tried) {
    options_.progress(fmt::format("run {}: {} nodes in fp32, {} settings", ++remedy.runs, tried.denied.size(),
                                  tried.settings.size()));
    now_ = examine(with_remedy(recipe_, tried));
    return now_.is_sound();
  }

  Remedy find_remedy(const Examination& before) {
    constexpr int kMostRounds = 10;
    Remedy remedy;
    std::set<std::string> denied;
    now_ = before;
    bool healthy = before.is_sound();
    for (int round = 0; round < kMostRounds && !healthy; ++round) {
      if (!propose(now_, remedy, denied)) break;
      healthy = is_healthy(remedy, remedy);
    }
    if (healthy) minimise(remedy);
    if (healthy && !remedy.empty()) begin_at_fitting_scale(remedy);
    if (healthy && remedy.empty()) raise_learning_rate(remedy);
    const bool repaired = healthy && !remedy.empty(), better = now_.findings.size() < before.findings.size();
    remedy.outcome = repaired ? Remedy::proven : better ? Remedy::partly : Remedy::none;
    remedy.after = now_;
    return remedy;
  }

  // Weights that no update reaches in fp32 either want larger updates.
  void raise_learning_rate(Remedy& remedy) {
    const Examination without = now_;
    double rate = recipe_.learning_rate;
    for (int i = 0; i < 6; ++i) {
      Remedy tried = remedy;
      tried.settings.emplace_back("learning_rate", fmt::format("{:g}", rate *= 8));
      if (!is_healthy(remedy, tried) || now_.full.losses.back() > now_.full.losses.front()) break;
      if (!now_.findings.empty()) continue;
      remedy.settings = tried.settings;
      return;
    }
    now_ = without;
  }

  // Steps that overflow on the way down to a scale are lost to a training that, unlike these runs, does not make them
  // again.
  void begin_at_fitting_scale(Remedy& remedy) {
    const Recipe now = with_remedy(recipe_, remedy);
    if (now_.low.skipped == 0 || !fitting_ || loss_scaling(now).mode != LossScaleMode::dynamic ||
        *fitting_ >= now.initial_scale)
      return;
    const Examination without = now_;
    Remedy tried = remedy;
    std::erase_if(tried.settings, [](const auto& setting) { return setting.first == "initial_scale"; });
    tried.settings.emplace_back("initial_scale", fmt::format("{:.0f}", *fitting_));
    if (is_healthy(remedy, tried))
      remedy.settings = tried.settings;
    else
      now_ = without;
  }

  // The run that proves what is left is the last one.
  void minimise(Remedy& remedy) {
    using Rules = std::vector<std::pair<std::string, std::string>>;
    Remedy tried = remedy;
    const std::function<bool(const Rules&)> holds = [&](const Rules& rules) {
      if (remedy.runs >= options_.most_runs) {
        remedy.fewest = false;
        return false;
      }
      tried.denied = rules;
      return is_healthy(remedy, tried);
    };
    if (remedy.denied.empty()) return;
    if (!remedy.settings.empty()) {
      if (holds({})) {
        remedy.denied.clear();
        return;
      }
      tried.settings.clear();
      if (holds(remedy.denied)) remedy.settings.clear();
      tried.settings = remedy.settings;
    }
    remedy.denied = fewest<std::pair<std::string, std::string>>(remedy.denied, holds);
    is_healthy(remedy, remedy);
  }

  Recipe recipe_;
  DeviceKind device_;
  const Batches& batches_;
  DoctorOptions options_;
  Judge judge_;
  std::map<double, Reference> references_;  // by learning rate
  Examination now_;                         // of the run made last
  std::optional<double> fitting_;
  std::vector<std::string> low_nodes_;  // of the recipe as it is
  bool settings_tried_ = false;
  int reach_ = 1;
};

}  // namespace

bool Examination::is_sound() const {
  return std::ranges::all_of(findings,
                             [](const Symptom& f) { return f.kind == Symptom::update_vanishes && f.in_fp32; });
}

std::string as_pattern(const std::string& node) {
  std::string pattern;
  for (const char c : node) {
    if (c == '*' || c == '?' || c == '[')
      pattern += std::string("[") + c + "]";
    else if (c == '\\')
      pattern += "\\\\";
    else
      pattern += c;
  }
  return pattern;
}

Recipe with_settings(const Recipe& recipe, const Remedy& remedy) {
  Recipe changed = recipe;
  for (const auto& [key, value] : remedy.settings) set_key(changed, key, value);
  return changed;
}

Recipe with_remedy(const Recipe& recipe, const Remedy& remedy) {
  Recipe changed = with_settings(recipe, remedy);
  for (const auto& [node, reason] : remedy.denied) changed.deny.push_back(as_pattern(node));
  return changed;
}

Diagnosis diagnose(const Recipe& recipe, DeviceKind device, const Batches& batches, const DoctorOptions& options) {
  if (recipe.precision == "fp32") throw Error("precision is fp32: there is nothing to compare; choose fp16 or bf16");
  Recipe examined = recipe;
  examined.accumulation = 1;  // each batch's own gradients
  return Doctor(std::move(examined), device, batches, options).run();
}

Bisection bisect(const Recipe& recipe, DeviceKind device,
                 const std::function<bool(const std::vector<std::string>&)>& good) {
  Bisection b;
  b.low_nodes = low_nodes(MeasuredStep(recipe, device, std::nullopt).report());
  b.candidates = b.low_nodes.size();
  const auto runs = [&](const std::vector<std::string>& denied) {
    ++b.runs;
    return good(denied);
  };
  if (runs({})) throw Error("the command succeeds with a policy that denies nothing: there is no fault to look for");
  if (!runs(b.low_nodes))
    throw Error(
        fmt::format("the command fails even with all {} nodes in fp32: no precision is at fault, or it does not "
                    "use the policy file",
                    b.candidates));
  b.denied = fewest<std::string>(b.low_nodes, runs);
  return b;
}

}  // namespace halfstep
