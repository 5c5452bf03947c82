// What a model has to train: every parameter and statistic, whether it is trained and why, and where it starts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compiler/recipe.h"

namespace halfstep {

struct ParameterRow {
  std::string name;
  Shape shape;  // as the file has it
  int64_t count = 0;
  enum State : uint8_t {
    trained,
    frozen,     // it stays as it is
    statistic,  // running: training updates it, the optimizer does not
    constant,   // a table, a number of a formula, or read by nothing
    tied,       // repeats another, and is trained as that
  } state = trained;
  std::string why;                   // "freeze 'backbone.*'"; of trained ones empty
  std::vector<std::string> readers;  // nodes
  std::optional<bool> decayed;       // by weight_decay; absent: it is not trained, or nothing decays
  std::string starts;                // "file", "normal 0.02", "uniform ±0.051", "absent"
  struct Values {
    double mean = 0, deviation = 0, least = 0, largest = 0;
  };
  std::optional<Values> values;  // absent: the file lacks them, or none are looked at
};
std::string_view name(ParameterRow::State state);

struct ParameterReport {
  std::vector<ParameterRow> rows;  // in the graph's order; then what is no leaf of it
  std::vector<std::string> remarks;
  std::string values_unknown;  // why no row has values
};

// Error as the import's.
ParameterReport parameter_report(const Recipe& recipe);

}  // namespace halfstep
