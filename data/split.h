// Which samples of a data set are held out, and how often those of a class are seen.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/data.h"

namespace halfstep {

// The class of each sample.
struct ClassLabels {
  std::string array;
  std::vector<int64_t> of_sample;
};
// From the first integer array of one value a sample among `names`, or else from the only such one; nullopt: there is
// none, or its values are none of classes, since more than half of them differ.
std::optional<ClassLabels> class_labels(const Dataset& dataset, std::span<const std::string> names);

struct SplitOptions {
  double fraction = 0;                   // of the samples, in (0, 1), or
  int64_t folds = 0, fold = 0;           // one of so many parts, from 1
  uint64_t seed = 0;                     // decides, with the number of samples and their classes, alone
  bool stratified = true;                // each class by itself, where there are classes
  std::vector<std::string> labels = {};  // arrays that may hold them

  std::string text() const;  // "test_fraction 0.2", "fold 2 of 5"
};

// Ascending indices of what is held out of `samples`, with their classes or, empty, without. Of classes each gives the
// part that is nearest to the fraction, the whole set it as well; one of a single sample gives none to a fraction.
// Folds are of equal size to one sample, and hold every sample once. Error where one of both parts would be empty.
std::vector<int64_t> held_out(int64_t samples, std::span<const int64_t> classes, const SplitOptions& options);

// The training part and the held-out one, each in the order of the data. Of tokens the last ones are held out. What
// the user should know is among the first's remarks.
std::pair<Dataset, Dataset> split_dataset(Dataset all, const SplitOptions& options);

}  // namespace halfstep
