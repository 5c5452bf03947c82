#include "compiler/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "compiler/doctor_judge.h"
#include "compiler/minimise.h"

namespace halfstep {
namespace {

DType low_of(const Recipe& recipe) { return recipe.precision == "bf16" ? DType::bf16 : DType::f16; }
double rounding(DType low) { return low == DType::f16 ? 0x1p-11 : 0x1p-8; }

Recipe in_fp32(Recipe recipe) {
  recipe.precision = "fp32", recipe.loss_scale = "none";
  recipe.allow.clear(), recipe.deny.clear(), recipe.infer.clear();
  return recipe;
}

// Three times what rounding the weights once does to the fp32 run, and a hundredth (bf16: four) of the loss at least.
LossBand measure_band(const MeasuredStep& full, const RunOfSteps& reference, const Batches& batches, DType low,
                      int runs) {
  LossBand band;
  std::vector<double> spread(reference.losses.size(), 0);
  for (int k = 0; k < runs; ++k) {
    const RunOfSteps run = full.run(batches, MeasuredStep::Disturbance{static_cast<uint64_t>(k) + 1, rounding(low)});
    for (size_t i = 0; i < std::min(spread.size(), run.losses.size()); ++i)
      spread[i] = std::max(spread[i], std::abs(run.losses[i] - reference.losses[i]));
  }
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
      runs, name(low), share * 100);
  return band;
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
    if (!d.before.findings.empty()) d.remedy = find_remedy(d.before);
    return d;
  }

 private:
  // The fp32 runs at the recipe's learning rate, which a remedy may change.
  struct Reference {
    RunOfSteps full;
    LossBand band;
  };
  const Reference& reference(double learning_rate) {
    const auto known = references_.find(learning_rate);
    if (known != references_.end()) return known->second;
    Recipe recipe = in_fp32(recipe_);
    recipe.learning_rate = learning_rate;
    Reference made;
    options_.progress("fp32");
    made.full = MeasuredStep(recipe, device_, options_.taps).run(batches_);
    if (!made.full.stuck.empty()) return references_.emplace(learning_rate, std::move(made)).first->second;
    options_.progress("the spread of fp32");
    const MeasuredStep plain(recipe, device_, std::nullopt);
    made.band = measure_band(plain, made.full, batches_, options_.taps.low, options_.disturbed_runs);
    return references_.emplace(learning_rate, std::move(made)).first->second;
  }

  Examination examine(const Recipe& recipe) {
    const Reference& fp32 = reference(recipe.learning_rate);
    const MeasuredStep step(recipe, device_, options_.taps);
    Examination e;
    e.full = fp32.full, e.low = step.run(batches_);
    e.differences = judge_.differences(e.full, e.low);
    e.findings = judge_.findings(e, fp32.band, step.model());
    return e;
  }

  // Settings before rules: a gradient that underflows wants a scale, not fp32.
  void propose(const Examination& e, Remedy& remedy, std::set<std::string>& denied) {
    const auto has = [&](Symptom::Kind kind, bool backward) {
      return std::ranges::any_of(e.findings, [&](const Symptom& f) {
        return f.kind == kind && (!backward || f.direction == Tap::backward || f.direction == Tap::gradient);
      });
    };
    const auto set = [&](const std::string& key, const std::string& value) {
      const auto known = std::ranges::find(remedy.settings, key, [](const auto& s) { return s.first; });
      known == remedy.settings.end() ? remedy.settings.emplace_back(key, value) : * known = {key, value};
    };
    if (low_of(recipe_) == DType::f16 && has(Symptom::underflow, true) && remedy.settings.empty() && fitting_) {
      const bool dynamic = recipe_.loss_scale == "auto" || recipe_.loss_scale == "dynamic";
      if (!dynamic) set("loss_scale", "auto");
      if (!dynamic || *fitting_ > recipe_.initial_scale) set("initial_scale", fmt::format("{:.0f}", *fitting_));
      if (!remedy.settings.empty()) return;
    }
    for (const Symptom& f : e.findings)
      for (const std::string& node : f.deny)
        if (denied.insert(node).second) remedy.denied.push_back({node, f.text});
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
      const auto settings = remedy.settings;
      const size_t rules = remedy.denied.size();
      propose(now_, remedy, denied);
      if (remedy.denied.size() == rules && remedy.settings == settings) break;
      healthy = is_healthy(remedy, remedy);
    }
    if (healthy) minimise(remedy);
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

  // The run that proves what is left is the last one.
  void minimise(Remedy& remedy) {
    using Rules = std::vector<std::pair<std::string, std::string>>;
    Remedy tried = remedy;
    const std::function<bool(const Rules&)> holds = [&](const Rules& rules) {
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

Recipe with_remedy(const Recipe& recipe, const Remedy& remedy) {
  Recipe changed = recipe;
  for (const auto& [key, value] : remedy.settings) set_key(changed, key, value);
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
  const MeasuredStep step(recipe, device, std::nullopt);
  Bisection b;
  std::set<std::string> seen;
  const CompileReport& report = step.report();
  for (const PrecisionRow& row : report.precision) {
    const std::string& node = row.origin.name;
    const bool is_of_user = std::ranges::find(report.onnx_nodes, node, &OnnxNode::name) != report.onnx_nodes.end();
    if (is_of_user && (is_low(row.result) || is_low(row.operand)) && seen.insert(node).second)
      b.low_nodes.push_back(node);
  }
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
