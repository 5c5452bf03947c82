// What a run left in its output directory, for its report: curves in constant memory, epochs, configuration.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace halfstep {

// A value by step, in at most kMostPoints stretches with the mean, the least and the greatest of each.
class Curve {
 public:
  static constexpr size_t kMostPoints = 1024;

  // Steps rise; one that does not begins a run that went on from there, and takes back what came after.
  void add(int64_t step, double value);
  // [[step, mean, least, greatest], ...]
  nlohmann::json json() const;
  bool empty() const { return points_.empty(); }

 private:
  struct Point {
    int64_t first, last, count;
    double sum, least, greatest;
  };
  std::vector<Point> points_;
  int64_t steps_a_point_ = 1;
};

struct RunRecord {
  std::string directory;
  std::vector<std::pair<std::string, Curve>> curves;  // of steps: "loss", "learning_rate", ...
  std::vector<int64_t> skipped;                       // steps, the first of them
  int64_t skips = 0;
  std::vector<nlohmann::json> epochs;  // lines of metrics.jsonl
  nlohmann::json end;                  // its last line; null: the run has not ended
  nlohmann::json precision;            // null: the step came compiled
  nlohmann::json layers;               // what layers.json holds; null: the layers were not timed
  std::string recipe;                  // its text; empty: there is none
};

// Error where there is no metrics.jsonl, or a line of it other than the last is no JSON object.
RunRecord read_run(const std::filesystem::path& out);

// As the report's page reads it.
nlohmann::json json_of(const RunRecord& run);

}  // namespace halfstep
