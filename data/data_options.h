// What a recipe says of its data beyond where it lies.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halfstep {

struct ByteSize {
  int64_t bytes = 0;
  friend bool operator==(const ByteSize&, const ByteSize&) = default;
};

struct DataOptions {
  ByteSize data_memory{int64_t{1} << 30};  // arrays and tables of more stay in files

  // What is held out, and how often a sample is seen.
  double test_fraction = 0;
  int64_t folds = 0, fold = 1;       // 0: none; counted from 1
  std::string stratify = "auto";     // auto|none
  std::string sampling = "natural";  // natural|balanced
  int64_t shuffle_buffer = 0;        // samples that are mixed, of tar shards; 0: all

  // Tables.
  std::string header = "auto";  // auto|true|false
  std::string delimiter = "auto";
  std::vector<std::string> label_column = {}, columns = {}, drop_columns = {},
                           standardize = {};  // names; the last three are patterns
  std::string bad_rows = "stop";              // stop|skip
  std::string text_column = {}, image_column = {};

  // Images.
  int64_t resize = 0;                     // of the shorter side, before the middle is cut out; 0: as the model's input
  std::string image_fit = "crop";         // crop|stretch
  std::vector<std::string> augment = {};  // crop, flip, shift, color, hue, cutout
  double crop_scale = 0.08;               // least share of the area that augment's crop takes
  double mixup = 0, cutmix = 0;           // of the Beta distributions that batches are mixed by; 0: they are not
  std::string bad_images = "stop";        // stop|skip
  int64_t loader_threads = 0;             // 0: as many as there are processors
  int64_t max_image_pixels = 178956970;

  // Texts.
  std::string tokenizer = {};

  friend bool operator==(const DataOptions&, const DataOptions&) = default;
};

}  // namespace halfstep
