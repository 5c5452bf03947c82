// What measures of one output are computed from. Memory is that of its classes or columns, whatever the number of
// samples, but for scores.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "program/notes.h"

namespace halfstep {

// Of a tally, as bits.
enum TallyPart : uint8_t { kCounts = 1, kHits = 2, kConfusion = 4, kScores = 8, kColumns = 16, kMeanLoss = 32 };

// Scores that an evaluation keeps, all classes of all samples together.
inline constexpr int64_t kMostScoreBytes = int64_t{512} << 20;
inline constexpr int64_t kMostConfusedClasses = 2000;
inline constexpr int64_t kMostColumns = int64_t{1} << 22;

struct Tally {
  // One label that holds or not counts as two classes, several as so many that are asked one by one.
  enum Form : uint8_t { classes, labels, values } form = classes;
  uint8_t parts = 0;
  double judged = 0, correct = 0;              // labels
  std::vector<double> right, guessed, actual;  // by class
  std::map<int64_t, double> hits;              // by k: labels among the k highest
  std::vector<int64_t> confusion;              // [label, guess]
  std::vector<std::vector<double>> scores;     // by class, of every label
  std::vector<std::vector<bool>> holds;        // by class; of classes `truth` says it
  std::vector<int32_t> truth;
  double absolute = 0, squared = 0, elements = 0;
  struct Column {
    double mean = 0, spread = 0, residual = 0;  // of targets; sums of squares
  };
  std::vector<Column> columns;
  double rows = 0;
  double loss = 0;         // its mean
  double nan = 0;          // labels whose output is none
  int64_t first_nan = -1;  // sample

  size_t size() const { return actual.size(); }
};

// How the elements of one output's batch lie.
struct JudgedShape {
  int64_t batch = 0, outer = 1, classes = 1, inner = 1;  // [batch, outer, classes, inner]
  int64_t positions() const { return outer * inner; }
};
// Error where the output has no such axis, or output and labels do not go together.
JudgedShape output_shape(const JudgedOutput& judged, const TensorType& output);
JudgedShape judged_shape(const JudgedOutput& judged, const TensorType& output, const TensorType& labels);

Tally make_tally(const JudgedOutput& judged, const JudgedShape& shape, uint8_t parts);
// Bytes of scores that so many samples would keep.
int64_t score_bytes(const Tally& tally, const JudgedShape& shape, int64_t samples);
// `scores` are f32 and `labels` of `type`, both of a whole batch, whose first `rows` count.
void add_batch(Tally& tally, const JudgedOutput& judged, const JudgedShape& shape, std::span<const float> scores,
               DType type, std::span<const std::byte> labels, int64_t rows, int64_t sample);

// Area under the curve of one class by ranks, ties counting half; NaN where all labels or none hold.
double area_under_curve(std::span<const double> scores, const std::vector<bool>& holds);

}  // namespace halfstep
