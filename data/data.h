// Data sets: named arrays over the same samples, or one stream of tokens.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/losses.h"
#include "base/tensor.h"
#include "data/data_facts.h"
#include "data/data_options.h"
#include "data/image_files.h"
#include "data/sample_values.h"
#include "data/texts.h"
#include "data/token_file.h"

namespace halfstep {

struct NamedArray {
  std::string name;
  SampleValues values;                    // axis 0 counts samples
  std::vector<std::string> columns = {};  // of a table: names of the elements of a sample
};

struct Dataset {
  std::vector<NamedArray> arrays;     // none where there are tokens
  std::optional<TokenSpan> tokens{};  // how many samples they are, a feed's window decides
  std::optional<ImageSpan> images{};  // beside the arrays
  std::optional<TextSpan> texts{};    // beside them too
  DataFacts facts{};
  std::vector<std::string> remarks{};  // what the user should know of how it was read, a sentence each

  int64_t size() const;  // samples of the arrays, images and texts
};

// Keeps these samples, ascending, of the arrays, images and texts; the others are gone.
void keep_rows(Dataset& dataset, std::span<const int64_t> rows);

// Checks that there are arrays, all with the same number of samples, at least one, and that floating values are finite
// (an Error names the array and the sample).
Dataset make_dataset(std::vector<NamedArray> arrays);

enum class Split : uint8_t { train, test };

// `specification` is one of
//   a directory with the four IDX files of the MNIST family, gzipped or not: arrays "images" and "labels" of the split;
//   NAME=FILE,NAME=FILE,...: one IDX or NPY file per array, gzipped or not;
//   FILE.npz: its arrays under their names;
//   a folder of images: see data/image_folder.h;
//   FILE.tar, FILE-{000..009}.tar: see data/tar_files.h;
//   FILE.csv, FILE.tsv, gzipped or not: see data/table.h.
// Where `facts` hold something, the data is seen as they say. Throws Error naming the file and what is wrong.
Dataset open_dataset(const std::string& specification, Split split, const DataOptions& options = {},
                     const DataFacts& facts = {});
// A directory that holds data for both splits.
bool has_test_part(const std::string& specification);
// Data of this form has facts that its training part says: names of classes, of columns.
bool teaches(const std::string& specification);

// One token file, or a text file that a tokenizer is named for; all of it.
Dataset open_tokens(const std::string& path, const std::string& tokenizer = "");

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
