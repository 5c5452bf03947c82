#include "cli/run_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "program/json_text.h"
#include "training/layer_times.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kLongestLine = 64 << 20, kMostEpochs = 100000, kMostSkips = 1000, kMostCurves = 64;
constexpr int64_t kMostTextBytes = 64 << 20;

std::string text_if_there(const fs::path& path) {
  std::error_code unreadable;
  return fs::exists(path, unreadable) ? read_file(path, kMostTextBytes) : "";
}

// std::getline that stops behind kLongestLine.
bool next_line(std::istream& file, std::string& line) {
  line.clear();
  while (line.size() <= kLongestLine) {
    const std::istream::int_type next = file.rdbuf()->sbumpc();
    if (next == std::istream::traits_type::eof()) {
      file.setstate(std::ios::eofbit);
      return !line.empty();
    }
    if (next == '\n') return true;
    line += static_cast<char>(next);
  }
  return true;
}

Curve* curve_named(RunRecord& run, const std::string& name) {
  const auto found = std::ranges::find(run.curves, name, &std::pair<std::string, Curve>::first);
  if (found != run.curves.end()) return &found->second;
  if (run.curves.size() == kMostCurves) return nullptr;
  return &run.curves.emplace_back(name, Curve()).second;
}

void take_step(RunRecord& run, const json& line) {
  static const std::set<std::string> kNoCurves{"kind", "step", "epoch", "skipped", "losses"};
  const int64_t step = count_in(line, "step");
  const auto add = [&](const std::string& name, const json& value) {
    if (Curve* const curve = value.is_number() ? curve_named(run, name) : nullptr)
      curve->add(step, value.get<double>());
  };
  for (const auto& [key, value] : line.items())
    if (!kNoCurves.contains(key)) add(key, value);
  if (line.contains("losses") && line["losses"].is_object())
    for (const auto& [name, values] : line["losses"].items())
      if (values.is_object() && values.contains("loss")) add("loss." + name, values["loss"]);
  while (!run.skipped.empty() && run.skipped.back() >= step) run.skipped.pop_back(), --run.skips;
  if (line.value("skipped", false) && ++run.skips > 0 && run.skipped.size() < kMostSkips) run.skipped.push_back(step);
}

void take_epoch(RunRecord& run, const json& line) {
  const int64_t epoch = count_in(line, "epoch");
  while (!run.epochs.empty() && run.epochs.back()["epoch"].get<int64_t>() >= epoch) run.epochs.pop_back();
  if (run.epochs.size() == kMostEpochs) return;
  // Matrices and classes of the last are what is shown.
  if (!run.epochs.empty())
    for (auto at = run.epochs.back().begin(); at != run.epochs.back().end();)
      at = at->is_array() ? run.epochs.back().erase(at) : std::next(at);
  run.epochs.push_back(line);
}

void take_line(RunRecord& run, const json& line) {
  const std::string kind = line.contains("kind") ? line_of(line["kind"]) : "";
  if (kind == "step") take_step(run, line);
  if (kind == "epoch") take_epoch(run, line);
  if (kind == "end") run.end = line;
}

// As `train` writes it.
bool is_precision(const json& precision) {
  if (!precision.is_object() || !precision.contains("compile") || !precision.contains("precision")) return false;
  const json& compile = precision["compile"];
  const auto is_number = [&](const char* key) { return compile.contains(key) && compile[key].is_number(); };
  constexpr std::array kNumbers{"seconds", "parameters", "calls", "state_bytes", "scratch_bytes"};
  return compile.is_object() && precision["precision"].is_array() && std::ranges::all_of(kNumbers, is_number) &&
         std::ranges::all_of(precision["precision"], [](const json& row) { return row.is_object(); });
}

// As write_layer_times has it.
bool is_layers(const json& file) {
  if (!file.is_object() || !file.contains("layers") || !file["layers"].is_array()) return false;
  const auto is_row = [](const json& row) {
    if (!row.is_object()) return false;
    const auto is = [&](const char* key, auto kind) { return row.contains(key) && (row[key].*kind)(); };
    for (const char* key : {"calls", "forward", "backward", "update", "share"})
      if (!is(key, &json::is_number)) return false;
    return is("layer", &json::is_string) && is("scope", &json::is_string);
  };
  return file.contains("microseconds") && file["microseconds"].is_number() &&
         std::ranges::all_of(file["layers"], is_row);
}

}  // namespace

void Curve::add(int64_t step, double value) {
  if (!std::isfinite(value)) return;
  while (!points_.empty() && points_.back().last >= step) points_.pop_back();
  if (!points_.empty() && points_.back().count < steps_a_point_) {
    Point& point = points_.back();
    point.last = step, ++point.count, point.sum += value;
    point.least = std::min(point.least, value), point.greatest = std::max(point.greatest, value);
    return;
  }
  points_.push_back({step, step, 1, value, value, value});
  if (points_.size() < 2 * kMostPoints) return;
  for (size_t i = 0; i < kMostPoints; ++i) {
    const Point &a = points_[2 * i], &b = points_[2 * i + 1];
    points_[i] = {a.first,
                  b.last,
                  a.count + b.count,
                  a.sum + b.sum,
                  std::min(a.least, b.least),
                  std::max(a.greatest, b.greatest)};
  }
  points_.resize(kMostPoints);
  steps_a_point_ *= 2;
}

json Curve::json() const {
  nlohmann::json list = nlohmann::json::array();
  // At most twice as many are held.
  const size_t together = points_.size() > kMostPoints ? 2 : 1;
  for (size_t i = 0; i < points_.size(); i += together) {
    Point point = points_[i];
    if (together == 2 && i + 1 < points_.size()) {
      const Point& next = points_[i + 1];
      point = {point.first,
               next.last,
               point.count + next.count,
               point.sum + next.sum,
               std::min(point.least, next.least),
               std::max(point.greatest, next.greatest)};
    }
    list.push_back(
        {(point.first + point.last) / 2, point.sum / static_cast<double>(point.count), point.least, point.greatest});
  }
  return list;
}

RunRecord read_run(const fs::path& out) {
  RunRecord run;
  run.directory = out.string();
  const fs::path path = out / "metrics.jsonl";
  std::error_code unreadable;
  if (!fs::is_regular_file(path, unreadable))
    throw Error(fmt::format("'{}' is no output directory of a run: it has no metrics.jsonl", out.string()));
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot open '" + path.string() + "'");
  int64_t number = 0;
  for (std::string text; next_line(file, text);) {
    ++number;
    if (text.size() > kLongestLine)
      throw Error(fmt::format("'{}': line {} has more than {} bytes", path.string(), number, kLongestLine));
    const json line = parse_json(text);
    if (!line.is_object()) {
      if (file.eof()) break;  // a run that is writing it, or died
      throw Error(fmt::format("'{}': line {} is no JSON object", path.string(), number));
    }
    try {
      take_line(run, line);
    } catch (const nlohmann::json::exception&) {
      throw Error(fmt::format("'{}': line {} is none that a run writes", path.string(), number));
    } catch (const Error& e) {
      throw Error(fmt::format("'{}': line {}: {}", path.string(), number, e.what()));
    }
  }
  if (run.curves.empty() && run.epochs.empty())
    throw Error("'" + path.string() + "' has no step and no epoch yet: train first");
  if (const std::string text = text_if_there(out / "precision.json"); !text.empty()) run.precision = parse_json(text);
  if (!is_precision(run.precision)) run.precision = nullptr;
  if (const std::string text = text_if_there(out / kLayerTimesFile); !text.empty()) run.layers = parse_json(text);
  if (!is_layers(run.layers)) run.layers = nullptr;
  run.recipe = text_if_there(out / "recipe.toml");
  return run;
}

json json_of(const RunRecord& run) {
  json data{{"directory", run.directory}, {"skips", run.skips},       {"skipped", run.skipped},
            {"epochs", run.epochs},       {"end", run.end},           {"precision", run.precision},
            {"recipe", run.recipe},       {"curves", json::object()}, {"layers", run.layers}};
  for (const auto& [name, curve] : run.curves)
    if (!curve.empty()) data["curves"][name] = curve.json();
  return data;
}

}  // namespace halfstep
