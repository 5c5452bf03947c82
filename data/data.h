// Data sets: named arrays over the same samples, or one stream of tokens.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/losses.h"
#include "base/tensor.h"
#include "data/token_file.h"

namespace halfstep {

struct NamedArray {
  std::string name;
  Tensor values;  // axis 0 counts samples
};

struct Dataset {
  std::vector<NamedArray> arrays;     // none where there are tokens
  std::optional<TokenSpan> tokens{};  // how many samples they are, a feed's window decides

  int64_t size() const;  // samples of the arrays
};

// Checks that there are arrays, all with the same number of samples, at least one, and that floating values are finite
// (an Error names the array and the sample).
Dataset make_dataset(std::vector<NamedArray> arrays);

enum class Split : uint8_t { train, test };

// `specification` is one of
//   a directory with the four IDX files of the MNIST family, gzipped or not: arrays "images" and "labels" of the split;
//   NAME=FILE,NAME=FILE,...: one IDX or NPY file per array, gzipped or not;
//   FILE.npz: its arrays under their names.
// Throws Error naming the file and what is wrong.
Dataset open_dataset(const std::string& specification, Split split);

// One token file; all of it.
Dataset open_tokens(const std::string& path);
// Its first part and the last `fraction`, in (0, 1), of its tokens. Throws Error where it is no token file.
std::pair<Dataset, Dataset> split_tokens(const Dataset& dataset, double fraction);

struct LabelRange {
  int64_t classes = 0;                     // labels are in [0, classes)
  std::optional<int64_t> ignored = {};     // is a valid label as well
  std::optional<LabelBounds> bounds = {};  // of labels that are no classes
};

// What the values of arrays of labels and indices may be.
struct ValueRanges {
  std::string labels = "labels";                     // the array that holds them
  int64_t classes = 0;                               // labels and tokens are in [0, classes); 0: they are not checked
  std::optional<int64_t> ignored = {};               // is a valid label as well
  std::map<std::string, LabelRange> labels_of = {};  // by array, of several losses and of labels with bounds
  std::map<std::string, int64_t> rows = {};  // by array, of the table that its values choose from: in [-rows, rows)
};

// Of an array that holds labels; nullopt: it holds none, or they are not checked.
std::optional<LabelRange> label_range(const ValueRanges& ranges, const std::string& array);

// Throws Error naming the array or file and the first value that is out of range.
void check_ranges(const Dataset& dataset, const ValueRanges& ranges);

}  // namespace halfstep
