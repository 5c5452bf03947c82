// Data sets: named arrays over the same samples.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/tensor.h"

namespace halfstep {

struct NamedArray {
  std::string name;
  Tensor values;  // axis 0 counts samples
};

struct Dataset {
  std::vector<NamedArray> arrays;

  int64_t size() const;  // samples
};

// Checks that there are arrays, all with the same number of samples, at least one, and that floating values are finite
// (an Error names the array and the sample). Integer arrays with one value a sample become i64: they are labels.
Dataset make_dataset(std::vector<NamedArray> arrays);

enum class Split : uint8_t { train, test };

// `specification` is one of
//   a directory with the four IDX files of the MNIST family, gzipped or not: arrays "images" and "labels" of the split;
//   NAME=FILE,NAME=FILE,...: one IDX or NPY file per array, gzipped or not;
//   FILE.npz: its arrays under their names.
// Throws Error naming the file and what is wrong.
Dataset open_dataset(const std::string& specification, Split split);

struct LabelRange {
  int64_t classes = 0;                  // labels are in [0, classes); 0: they are not checked
  std::optional<int64_t> ignored = {};  // is valid as well
};

// Throws Error naming the array and the first sample whose label is out of range.
void check_labels(const Dataset& dataset, const LabelRange& range);

}  // namespace halfstep
