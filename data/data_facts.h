// What a run learned of its training data and kept: whoever evaluates it, predicts with it or goes on with it must see
// data the same way.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace halfstep {

struct DataFacts {
  std::optional<uint64_t> split_seed = {};  // of the samples that are held out; absent: none were split off
  std::string split = {};                   // how: "test_fraction 0.2"; empty: none were
  std::vector<std::string> classes = {};    // names of the labels 0, 1, ...; empty: labels are numbers
  std::vector<std::string> columns = {};    // of a table, in the order of the model's input
  std::vector<std::string> labels = {};     // its columns of labels
  // Columns that are standardised: (x - mean) / deviation.
  struct Scaling {
    std::string column;
    double mean = 0, deviation = 1;
    friend bool operator==(const Scaling&, const Scaling&) = default;
  };
  std::vector<Scaling> scalings = {};

  bool empty() const { return *this == DataFacts(); }
  friend bool operator==(const DataFacts&, const DataFacts&) = default;
};

}  // namespace halfstep
