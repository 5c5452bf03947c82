// A model's outputs for a data set, as a file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/row_writer.h"
#include "training/trainer.h"

namespace halfstep {

struct PredictOptions {
  EvaluateOptions evaluate{};
  int64_t top = 0;  // of each output of classes the so many with the highest scores in place of all; 0: all
  enum Scores : uint8_t { as_given, probabilities } scores = as_given;
  std::vector<std::string> class_names{};
};

struct Predicted {
  int64_t samples = 0;
  std::vector<RowArray> arrays{};  // of the file
  std::vector<std::string> remarks{};
};

// Runs program "evaluate" over all samples in order and writes the model's outputs under their names, those of low
// types as f32, in the format of `file`'s ending. Labels need not be there and are not read. Error where the step was
// compiled without the outputs, one has no row for each sample, or they are no classes that `top` or probabilities are
// of. nullopt: a signal came, and nothing is written.
std::optional<Predicted> predict(Executor& executor, Dataset dataset, const PredictOptions& options,
                                 const std::filesystem::path& file);

}  // namespace halfstep
