#include "compiler/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
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
      : recipe_(std::move(recipe)), device_(device), batches_(batches), options_(options) {
    options_.taps.low = low_of(recipe_);
  }

  Diagnosis run() {
    Diagnosis d;
    d.recipe = recipe_, d.device = device_, d.bins = tap_bins(options_.taps.low);
    options_.progress("fp32");
    const MeasuredStep full(in_fp32(recipe_), device_, options_.taps);
    full_ = full.run(batches_);
    if (!full_.stuck.empty())
      throw Error(full_.stuck +
                  " in fp32 either: no precision is at fault; look at the learning rate, the data and the "
                  "initial weights");
    options_.progress("the spread of fp32");
    const MeasuredStep plain(in_fp32(recipe_), device_, std::nullopt);
    d.band = band_ = measure_band(plain, full_, batches_, options_.taps.low, options_.disturbed_runs);
    options_.progress(recipe_.precision);
    d.before = examine(recipe_);
    judge_.fit_scale(full_, d.before.low, d.fitting_scale, d.limiting_tensor);
    fitting_ = d.fitting_scale;
    if (!d.before.findings.empty()) d.remedy = find_remedy(d.before);
    return d;
  }

 private:
  Examination examine(const Recipe& recipe) {
    const MeasuredStep step(recipe, device_, options_.taps);
    Examination e;
    e.full = full_, e.low = step.run(batches_);
    judge_ = Judge(low_of(recipe), recipe.precision != "fp32");
    e.differences = judge_.differences(e.full, e.low);
    e.findings = judge_.findings(e, band_, step.model());
    return e;
  }

  // Settings before rules: a gradient that underflows wants a scale, not fp32.
  void propose(const Examination& e, Remedy& remedy, std::set<std::string>& denied) {
    bool backward = false;
    for (const Finding& f : e.findings)
      backward |= f.kind == Finding::underflow && (f.direction == Tap::backward || f.direction == Tap::gradient);
    if (low_of(recipe_) == DType::f16 && backward && remedy.settings.empty() && fitting_) {
      const bool dynamic = recipe_.loss_scale == "auto" || recipe_.loss_scale == "dynamic";
      if (!dynamic) remedy.settings.push_back({"loss_scale", "auto"});
      if (!dynamic || *fitting_ > recipe_.initial_scale)
        remedy.settings.push_back({"initial_scale", fmt::format("{:.0f}", *fitting_)});
      if (!remedy.settings.empty()) return;
    }
    for (const Finding& f : e.findings)
      for (const std::string& node : f.deny)
        if (denied.insert(node).second) remedy.denied.push_back({node, f.text});
  }

  Remedy find_remedy(const Examination& before) {
    constexpr int kMostRounds = 8;
    Remedy remedy;
    std::set<std::string> denied;
    Examination now = before;
    const auto is_healthy = [&](const Remedy& tried) {
      options_.progress(fmt::format("run {} with {} rules", ++remedy.runs, tried.denied.size()));
      now = examine(with_remedy(recipe_, tried));
      return now.findings.empty();
    };
    bool healthy = false;
    for (int round = 0; round < kMostRounds && !healthy; ++round) {
      const size_t known = remedy.denied.size() + remedy.settings.size();
      propose(now, remedy, denied);
      if (remedy.denied.size() + remedy.settings.size() == known) break;
      healthy = is_healthy(remedy);
    }
    remedy.outcome = healthy ? Remedy::proven : Remedy::none;
    if (!healthy) {
      remedy.after = now;
      const bool better = now.findings.size() < before.findings.size();
      remedy.outcome = better ? Remedy::partly : Remedy::none;
      return remedy;
    }
    remedy.after = now;
    minimise(remedy, is_healthy);
    return remedy;
  }

  void minimise(Remedy& remedy, const std::function<bool(const Remedy&)>& is_healthy) {
    Remedy tried = remedy;
    const auto holds = [&](const std::vector<std::pair<std::string, std::string>>& rules) {
      tried.denied = rules;
      return is_healthy(tried);
    };
    if (!remedy.settings.empty() && !remedy.denied.empty()) {
      tried.settings.clear();
      if (holds(remedy.denied)) remedy.settings.clear();
      tried.settings = remedy.settings;
    }
    if (!remedy.denied.empty() && !remedy.settings.empty() && holds({})) {
      remedy.denied.clear();
    } else if (!remedy.denied.empty()) {
      remedy.denied = fewest<std::pair<std::string, std::string>>(remedy.denied, holds);
    }
    // The run that proves it is the last one.
    if (is_healthy(remedy)) remedy.outcome = Remedy::proven;
    remedy.after = examine(with_remedy(recipe_, remedy));
  }

  Recipe recipe_;
  DeviceKind device_;
  const Batches& batches_;
  DoctorOptions options_;
  RunOfSteps full_;
  LossBand band_;
  Judge judge_;
  std::optional<double> fitting_;
};

}  // namespace

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
