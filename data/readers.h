// The forms that data comes in, a row each. A new one is its reader and its row.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "data/byte_source.h"
#include "data/data.h"

namespace halfstep {

// One array in a file, gzipped or not.
struct ArrayReader {
  std::string_view form;                                     // "NPY"
  std::string_view magic;                                    // how it begins
  SampleValues (*read)(ByteSource& source, int64_t memory);  // bytes, beyond which they may stay in their file
};
std::span<const ArrayReader> array_readers();

struct DataRequest {
  std::string specification;
  Split split = Split::train;
  DataOptions options{};
  DataFacts facts{};
};

// A data set, as `--data` names it.
struct DatasetReader {
  std::string_view form;  // "one .npz file"
  bool (*takes)(const std::string& specification);
  Dataset (*open)(const DataRequest& request);
  bool (*has_test_part)(const std::string& specification) = nullptr;  // null: never
  bool teaches = false;                                               // facts, from its training part
};
// The first that takes a specification opens it.
std::span<const DatasetReader> dataset_readers();

}  // namespace halfstep
