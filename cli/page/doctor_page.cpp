#include "cli/page/doctor_page.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "cli/page/embed.h"
#include "cli/page/page_files.h"

namespace halfstep {
namespace {

using nlohmann::json;

// A tensor as a row of few characters: of a large model there are thousands.
class PageData {
 public:
  PageData(const Diagnosis& d, const DoctorFiles& files, const std::string& policy)
      : d_(d), report_(doctor_json(d, files)) {
    const Examination& e = d.before;
    json data;
    data["tensors"] = json::array();
    for (size_t i = 0; i < e.low.tensors.size(); ++i) data["tensors"].push_back(row(i));
    data["names"] = names_;
    for (const char* key : {"model", "device", "precision", "preset", "settings", "recipe", "noise"})
      data[key] = report_[key];
    data["loss_scale"] = report_.contains("loss_scale") ? report_["loss_scale"] : json();
    const json& proof = report_["proof"];
    for (const char* key : {"criterion", "stopped", "skipped", "outcome", "runs", "fewest"}) data[key] = proof[key];
    for (const char* key : {"fp32", "allowed", "before", "after"}) data["losses"][key] = proof[key];
    data["findings"] = findings(e), data["still"] = findings(d.remedy.after);
    data["rules"] = report_["policy"]["rules"];
    if (!policy.empty()) data["policy"] = {{"file", files.policy}, {"text", policy}};
    const DType low = d.recipe.precision == "bf16" ? DType::bf16 : DType::f16;
    const auto exponent = [&](size_t threshold) { return std::ilogb(d.bins.thresholds[threshold]); };
    data["low"] = name(low), data["bins"] = {{"width", d.bins.width}};
    data["range"] = {exponent(d.bins.vanish), exponent(d.bins.normal), exponent(d.bins.overflow) + 1};
    data_ = std::move(data);
  }
  const json& data() const { return data_; }

 private:
  size_t text(const std::string& value) {
    const auto [found, added] = numbers_.emplace(value, names_.size());
    if (added) names_.push_back(value);
    return found->second;
  }

  static json findings(const Examination& e) {
    json list = json::array();
    for (const Symptom& f : e.findings)
      list.push_back(
          {{"kind", name(f.kind)}, {"node", f.node}, {"text", f.text}, {"remedy", f.remedy}, {"tensor", f.tensor}});
    return list;
  }

  // A share in so many parts of all.
  static int64_t parts(double count, double all, double of) {
    return all > 0 ? static_cast<int64_t>(std::ceil(count / all * of - 1e-9)) : 0;
  }

  // The bins that hold something.
  static json exponents(const TensorReading& t, int width) {
    const std::vector<double>& counts = t.all.exponents;
    const auto is_filled = [](double c) { return c > 0; };
    const auto begin = std::ranges::find_if(counts, is_filled);
    auto end = counts.end();
    while (end != begin && !is_filled(end[-1])) --end;
    json shares = json::array();
    for (auto at = begin; at != end; ++at) shares.push_back(parts(*at, t.all.counted, 1e4));
    return {t.first_exponent + width * static_cast<int>(begin - counts.begin()), shares};
  }

  json row(size_t i) {
    const Examination& e = d_.before;
    const TensorReading& t = e.low.tensors[i];
    const TapCounts& c = t.all;
    const json& said = report_["tensors"][i];
    json shares = json::array();
    const bool is_update = t.tap.kind == Tap::update;
    for (const double count : {c.zero, c.underflow, c.subnormal, c.overflow, c.infinite, c.nan,
                               is_update ? c.lost_low : 0, is_update ? c.lost_master : 0})
      shares.push_back(parts(count, c.counted, 1e6));
    const char* kinds[] = {"forward", "backward", "gradient", "update"};
    json full, differs;
    if (const TensorReading* other = e.full.find(t.tap.kind, t.tap.node); other && said.contains("fp32")) {
      full = exponents(*other, d_.bins.width);
      full.push_back(parts(other->all.zero, other->all.counted, 1e6)), full.push_back(said["fp32"]["max"]);
    }
    if (said.contains("difference")) {
      const json& d = said["difference"];
      differs = {d["relative_l2"], d["lost_energy"], d["worst_input"], d["allowed"]};
    }
    return {text(said["node"]),
            kinds[t.tap.kind],
            text(t.tap.node),
            text(said["type"]),
            said["elements"],
            t.tap.counted,
            shares,
            said["max"],
            t.scale,
            exponents(t, d_.bins.width),
            full,
            differs,
            t.tap.inputs};
  }

  const Diagnosis& d_;
  const json report_;
  json data_;
  std::unordered_map<std::string, size_t> numbers_;
  std::vector<std::string> names_;
};

std::string joined(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

}  // namespace

std::string doctor_page(const Diagnosis& diagnosis, const DoctorFiles& files, const std::string& policy) {
  const PageData page(diagnosis, files, policy);
  return page_of(page_files::doctor_html, joined({page_files::css, page_files::doctor_css}),
                 joined({page_files::common_js, page_files::doctor_plots_js, page_files::doctor_js}), page.data());
}

}  // namespace halfstep
