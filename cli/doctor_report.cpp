#include "cli/doctor_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/table.h"

namespace halfstep {
namespace {

using nlohmann::json;

std::string_view direction_name(Tap::Kind kind) {
  return kind == Tap::forward ? "forward" : kind == Tap::update ? "update" : "backward";
}

std::string value_name(const Tap& tap) {
  switch (tap.kind) {
    case Tap::forward:
      return "output";
    case Tap::backward:
      return "gradient";
    case Tap::gradient:
      return "gradient of " + tap.node;
    case Tap::update:
      return "update of " + tap.node;
  }
  return "";
}

// The user's node: of a parameter the one that reads it.
std::string node_name(const RunOfSteps& run, const Tap& tap) {
  if (tap.kind == Tap::forward || tap.kind == Tap::backward) return tap.node;
  for (const TensorReading& t : run.tensors)
    if (t.tap.kind == Tap::forward && std::ranges::count(t.tap.parameters, tap.node) > 0) return t.tap.node;
  return tap.node;
}

double share(double part, const TapCounts& of) { return of.counted > 0 ? part / of.counted : 0; }

std::string percent(double of_one) {
  if (of_one == 0) return "-";
  return of_one < 0.0005 ? "<0.1%" : fmt::format("{:.1f}%", 100 * of_one);
}

// A character for every few exponents, from the first bin of the type's range to its last; what is beyond stands in the
// outermost ones.
std::string histogram(const TensorReading& t, const TapBins& bins) {
  constexpr const char* kHeights[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string text;
  double most = 0;
  const size_t begin = bins.count > 36 ? static_cast<size_t>(bins.count) - 36 : 0;
  std::vector<double> cells;
  for (size_t i = 0; i < t.all.exponents.size(); ++i) {
    if (i < begin || cells.empty()) cells.resize(std::max<size_t>(cells.size(), 1));
    const size_t cell = i < begin ? 0 : (i - begin) / 2;
    cells.resize(std::max(cells.size(), cell + 1));
    cells[cell] += t.all.exponents[i];
  }
  for (const double c : cells) most = std::max(most, c);
  for (const double c : cells)
    text += kHeights[c == 0 ? 0 : 1 + static_cast<int>(std::min(7.0, std::floor(8 * c / most)))];
  return text;
}

// Finite numbers, or what it is in words: JSON has no infinity.
json number_json(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return "inf";
  return v;
}

std::string number_text(double v) {
  return std::isfinite(v) ? fmt::format("{:.3g}", v) : std::isnan(v) ? "nan" : "inf";
}

bool is_striking(const TensorReading& t, const Difference& d) {
  const TapCounts& c = t.all;
  if (t.tap.node == "loss" && t.tap.kind == Tap::backward) return false;  // the loss scale
  return d.error > 0.01 || c.infinite + c.nan + c.overflow > 0 || share(c.underflow + c.subnormal, c) > 0.05 ||
         (t.tap.kind == Tap::update && c.lost_low > 0.1 * c.counted);
}

std::string tensors_table(const Diagnosis& d, bool all, size_t& left_out) {
  const Examination& e = d.before;
  Table table(
      {"node", "value", "type", "largest", "zero", "vanishes", "subnormal", "beyond", "lost", "differs",
       fmt::format("2^{} to 2^16", d.bins.first + (d.bins.count > 36 ? (d.bins.count - 36) * d.bins.width : 0))});
  for (size_t i = 0; i < e.low.tensors.size(); ++i) {
    const TensorReading& t = e.low.tensors[i];
    const Difference& difference = e.differences[i];
    if (!all && !is_striking(t, difference)) {
      ++left_out;
      continue;
    }
    const TapCounts& c = t.all;
    const double elements =
        static_cast<double>(t.tap.type.element_count()) * static_cast<double>(std::max<size_t>(e.low.losses.size(), 1));
    table.add({node_name(e.low, t.tap), value_name(t.tap), std::string(name(t.tap.type.dtype)), number_text(c.largest),
               percent(share(c.zero, c)), percent(share(c.underflow, c)), percent(share(c.subnormal, c)),
               percent(share(c.overflow + c.infinite + c.nan, c)),
               t.tap.kind == Tap::update ? percent(c.lost_low / elements) : "",
               t.tap.kind == Tap::update ? ""
               : difference.error == 0   ? "-"
                                         : number_text(100 * difference.error) + "%",
               histogram(t, d.bins)});
  }
  return table.empty() ? "" : table.text();
}

std::string curve_table(const Diagnosis& d) {
  const std::vector<double>&full = d.before.full.losses, &low = d.before.low.losses;
  const bool repaired = !d.remedy.empty();
  const std::vector<double>& after = d.remedy.after.low.losses;
  std::vector<std::string> header{"step", "fp32", "allowed", "before"};
  if (repaired) header.push_back("after");
  Table table(std::move(header));
  const size_t every = std::max<size_t>(1, full.size() / 8);
  const auto at = [](const std::vector<double>& losses, size_t i) {
    return i < losses.size() ? fmt::format("{:.6f}", losses[i]) : std::string("-");
  };
  for (size_t i = 0; i < full.size(); ++i) {
    if (i % every != 0 && i + 1 != full.size()) continue;
    std::vector<std::string> row{std::to_string(i + 1), at(full, i), fmt::format("{:.6f}", d.band.allowed[i]),
                                 at(low, i)};
    if (repaired) row.push_back(at(after, i));
    table.add(std::move(row));
  }
  return table.text();
}

std::string_view outcome_name(Remedy::Outcome outcome) {
  switch (outcome) {
    case Remedy::not_needed:
      return "not needed";
    case Remedy::proven:
      return "proven";
    case Remedy::partly:
      return "better, not healthy";
    case Remedy::none:
      return "none found";
  }
  return "";
}

json tensor_json(const Examination& e, size_t i, const TapBins& bins) {
  const TensorReading& t = e.low.tensors[i];
  const TapCounts& c = t.all;
  const Difference& d = e.differences[i];
  json row{{"node", node_name(e.low, t.tap)},
           {"direction", direction_name(t.tap.kind)},
           {"value", value_name(t.tap)},
           {"type", to_string(t.tap.type)},
           {"elements", t.tap.type.element_count()},
           {"counted", c.counted},
           {"exponents", {{"first", t.first_exponent}, {"width", bins.width}, {"counts", c.exponents}}},
           {"zero", c.zero},
           {"underflow", c.underflow},
           {"subnormal", c.subnormal},
           {"overflow", c.overflow},
           {"infinite", c.infinite},
           {"nan", c.nan},
           {"max", number_json(c.largest)},
           {"scale", t.scale},
           {"inputs", t.tap.inputs}};
  if (t.tap.kind == Tap::update) row["lost_low"] = c.lost_low, row["lost_master"] = c.lost_master;
  if (t.tap.kind != Tap::update) {
    row["difference"] = {{"relative_l2", number_json(d.error)},
                         {"lost_energy", d.lost},
                         {"worst_input", number_json(d.worst_input)},
                         {"allowed", number_json(d.allowed)}};
    if (const TensorReading* full = e.full.find(t.tap.kind, t.tap.node))
      row["fp32"] = {
          {"exponents", {{"first", full->first_exponent}, {"width", bins.width}, {"counts", full->all.exponents}}},
          {"zero", full->all.zero},
          {"underflow", full->all.underflow},
          {"overflow", full->all.overflow},
          {"max", number_json(full->all.largest)}};
  }
  return row;
}

json losses_json(const std::vector<double>& losses) {
  json list = json::array();
  for (const double v : losses) list.push_back(number_json(v));
  return list;
}

}  // namespace

std::string doctor_text(const Diagnosis& d, const DoctorFiles& files, bool all) {
  const Examination& e = d.before;
  std::string text = fmt::format("{} steps in fp32 and in {} side by side on {}, preset {}\n\n", e.full.losses.size(),
                                 d.recipe.precision, name(d.device), d.recipe.preset);
  size_t left_out = 0;
  text += tensors_table(d, all, left_out);
  if (left_out > 0)
    text += fmt::format("  {} more tensors are well within range and agree with fp32 within 1%: --all shows them\n",
                        left_out);
  text += "\n" + curve_table(d);
  text += "  " + d.band.criterion + "\n";
  if (e.low.skipped > 0)
    text += fmt::format("  {} tries of steps overflowed and were made again at a lower scale\n", e.low.skipped);
  if (d.fitting_scale)
    text += fmt::format("  loss scale {:.0f} fits: {} is the first that would overflow above it\n", *d.fitting_scale,
                        d.limiting_tensor);
  if (e.findings.empty()) return text + "\nhealthy: nothing differs that precision is at fault for\n";
  text += fmt::format("\n{} finding{}, first cause first:\n", e.findings.size(), e.findings.size() == 1 ? "" : "s");
  for (size_t i = 0; i < e.findings.size(); ++i) {
    const Symptom& f = e.findings[i];
    text += fmt::format("  {}. {} '{}': {}\n", i + 1, name(f.kind), f.node, f.text);
    if (!f.remedy.empty()) text += fmt::format("     remedy: {}\n", f.remedy);
  }
  const Remedy& r = d.remedy;
  text += fmt::format("\nremedy: {} ({} run{})\n", outcome_name(r.outcome), r.runs, r.runs == 1 ? "" : "s");
  for (const auto& [key, value] : r.settings) text += fmt::format("  {} = {}\n", key, value);
  for (const auto& [node, reason] : r.denied) text += fmt::format("  '{}' in fp32\n", node);
  if (!r.fewest) text += "  (maybe not the fewest: the search was ended)\n";
  for (const Symptom& f : r.after.findings)
    text += fmt::format("  still there: {} '{}': {}\n", name(f.kind), f.node, f.text);
  if (!files.policy.empty()) text += fmt::format("  policy  {}\n", files.policy);
  if (!files.recipe.empty()) text += fmt::format("  recipe  {}\n", files.recipe);
  return text;
}

json doctor_json(const Diagnosis& d, const DoctorFiles& files) {
  const Examination& e = d.before;
  json tensors = json::array(), findings = json::array(), rules = json::array(), settings = json::object();
  for (size_t i = 0; i < e.low.tensors.size(); ++i) tensors.push_back(tensor_json(e, i, d.bins));
  for (const Symptom& f : e.findings)
    findings.push_back({{"node", f.node},
                        {"kind", name(f.kind)},
                        {"direction", direction_name(f.direction)},
                        {"text", f.text},
                        {"remedy", f.remedy}});
  for (const auto& [node, reason] : d.remedy.denied)
    rules.push_back({{"node", node}, {"precision", "fp32"}, {"reason", reason}});
  for (const auto& [key, value] : d.remedy.settings) settings[key] = value;
  json result{{"schema_version", 1},
              {"model", d.recipe.model},
              {"device", name(d.device)},
              {"precision", d.recipe.precision},
              {"preset", d.recipe.preset},
              {"steps", e.full.losses.size()},
              {"healthy", e.findings.empty()},
              {"tensors", std::move(tensors)},
              {"findings", std::move(findings)},
              {"policy", {{"file", files.policy}, {"rules", std::move(rules)}}},
              {"settings", std::move(settings)},
              {"recipe", files.recipe},
              {"noise", noise_of(d.recipe.precision == "bf16" ? DType::bf16 : DType::f16)}};
  if (d.fitting_scale) result["loss_scale"] = {{"fits", *d.fitting_scale}, {"limited_by", d.limiting_tensor}};
  result["proof"] = {{"criterion", d.band.criterion},
                     {"allowed", d.band.allowed},
                     {"fp32", losses_json(e.full.losses)},
                     {"before", losses_json(e.low.losses)},
                     {"stopped", e.low.stuck},
                     {"skipped", e.low.skipped},
                     {"after", losses_json(d.remedy.after.low.losses)},
                     {"outcome", outcome_name(d.remedy.outcome)},
                     {"runs", d.remedy.runs},
                     {"fewest", d.remedy.fewest}};
  return result;
}

}  // namespace halfstep
