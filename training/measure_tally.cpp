#include "training/measure_tally.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"

namespace halfstep {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kPositionsAtOnce = 64;

bool is_of_classes(OutputMeaning meaning) {
  return meaning == OutputMeaning::logits || meaning == OutputMeaning::probabilities ||
         meaning == OutputMeaning::log_probabilities;
}

int64_t product(std::span<const int64_t> sizes) {
  return TensorType{DType::u8, {sizes.begin(), sizes.end()}}.element_count();
}

// One position's scores.
struct Scores {
  const float* first;
  int64_t count;
  double operator[](int64_t c) const { return static_cast<double>(first[c]); }
  // The first of the highest, as the loss's guess; -1 where one is NaN.
  int64_t highest() const {
    int64_t best = 0;
    bool nan = false;
    for (int64_t c = 0; c < count; ++c) {
      nan |= first[c] != first[c];
      best = first[c] > first[best] ? c : best;
    }
    return nan ? -1 : best;
  }
  // How many come before `label`: those with a higher score, and of equal ones those of lower classes.
  int64_t rank(int64_t label) const {
    int64_t before = 0;
    for (int64_t c = 0; c < count; ++c)
      before += (*this)[c] > (*this)[label] || ((*this)[c] == (*this)[label] && c < label);
    return before;
  }
};

// Logarithms of p / (1 - p): in the order of the softmax's p, and without ties that rounding p would make.
void log_odds(const Scores& logits, std::vector<std::vector<double>>& to) {
  const double top = logits[logits.highest()];
  double all = 0;
  for (int64_t c = 0; c < logits.count; ++c) all += std::exp(logits[c] - top);
  for (int64_t c = 0; c < logits.count; ++c) {
    // Of the highest, what is left of the sum without it is lost in rounding.
    double others = all - std::exp(logits[c] - top);
    if (others < 0.5 * all) {
      others = 0;
      for (int64_t other = 0; other < logits.count; ++other)
        if (other != c) others += std::exp(logits[other] - top);
    }
    to[static_cast<size_t>(c)].push_back(logits[c] - top - std::log(others));
  }
}

void count_nan(Tally& tally, int64_t sample) {
  if (tally.nan++ == 0) tally.first_nan = sample;
}

void count(Tally& tally, size_t label, size_t guess) {
  ++tally.judged, tally.correct += label == guess;
  ++tally.actual[label], ++tally.guessed[guess];
  if (label == guess) ++tally.right[label];
  if (tally.parts & kConfusion) ++tally.confusion[label * tally.size() + guess];
}

void take_classes(Tally& tally, OutputMeaning meaning, const Scores& scores, int64_t label, int64_t sample) {
  if (label < 0 || label >= scores.count)
    throw Error("measures: sample " + std::to_string(sample) + " has label " + std::to_string(label) +
                ", the output has " + std::to_string(scores.count) + " classes");
  // Nor has a softmax over infinity a value.
  const bool softmax = (tally.parts & kScores) && meaning == OutputMeaning::logits;
  const int64_t guess = scores.highest();
  if (guess < 0 || (softmax && std::isinf(scores[guess]))) return count_nan(tally, sample);
  count(tally, static_cast<size_t>(label), static_cast<size_t>(guess));
  for (auto& [k, hits] : tally.hits) hits += scores.rank(label) < k;
  if (!(tally.parts & kScores)) return;
  tally.truth.push_back(static_cast<int32_t>(label));
  if (softmax) return log_odds(scores, tally.scores);
  for (int64_t c = 0; c < scores.count; ++c) tally.scores[static_cast<size_t>(c)].push_back(scores[c]);
}

// NaN stands for a label that does not count.
void take_labels(Tally& tally, double threshold, const Scores& scores, std::span<const double> truth, int64_t sample) {
  if (scores.highest() < 0) return count_nan(tally, sample);
  for (size_t c = 0; c < truth.size(); ++c) {
    if (std::isnan(truth[c])) continue;
    const double score = scores[static_cast<int64_t>(c)];
    const bool holds = truth[c] > 0.5, guessed = score > threshold;
    if (tally.form == Tally::classes) {
      count(tally, holds, guessed);
    } else {
      ++tally.judged, tally.correct += holds == guessed;
      tally.actual[c] += holds, tally.guessed[c] += guessed, tally.right[c] += holds && guessed;
    }
    if (!(tally.parts & kScores)) continue;
    tally.scores[c].push_back(score), tally.holds[c].push_back(holds);
  }
}

void take_values(Tally& tally, std::span<const float> row, DType type, const std::byte* targets, int64_t sample) {
  ++tally.rows;
  const auto bytes = static_cast<size_t>(size_of(type));
  bool nan = false;
  for (size_t i = 0; i < row.size(); ++i) {
    const double target = load_as_double(type, targets + i * bytes), difference = static_cast<double>(row[i]) - target;
    nan = nan || std::isnan(difference);
    tally.absolute += std::abs(difference), tally.squared += difference * difference, ++tally.elements;
    if (!(tally.parts & kColumns)) continue;
    Tally::Column& column = tally.columns[i];
    const double from_mean = target - column.mean;
    column.mean += from_mean / tally.rows;
    column.spread += from_mean * (target - column.mean);
    column.residual += difference * difference;
  }
  if (nan) count_nan(tally, sample);
}

}  // namespace

JudgedShape output_shape(const JudgedOutput& judged, const TensorType& output) {
  const Shape& shape = output.shape;
  const auto misfit = [&](const std::string& why) {
    return Error("output '" + judged.output + "' is " + to_string(output) + ": " + why);
  };
  if (shape.empty() || output.element_count() == 0) throw misfit("a row for each sample expected");
  JudgedShape result{.batch = shape[0]};
  const std::span<const int64_t> rest = std::span(shape).subspan(1);
  if (judged.meaning == OutputMeaning::values) {
    result.inner = product(rest);
  } else if (judged.class_axis >= 1 && judged.class_axis < static_cast<int64_t>(shape.size())) {
    const auto axis = static_cast<size_t>(judged.class_axis - 1);
    result.outer = product(rest.first(axis)), result.classes = rest[axis];
    result.inner = product(rest.subspan(axis + 1));
  } else if (is_of_classes(judged.meaning)) {
    throw misfit("there is no axis " + std::to_string(judged.class_axis) + " of classes");
  } else {
    result.outer = product(rest);
  }
  return result;
}

JudgedShape judged_shape(const JudgedOutput& judged, const TensorType& output, const TensorType& labels) {
  const JudgedShape shape = output_shape(judged, output);
  const int64_t expected = shape.positions() * (is_of_classes(judged.meaning) ? 1 : shape.classes);
  if (labels.shape.empty() || labels.shape[0] != shape.batch ||
      labels.element_count() != checked_mul(shape.batch, expected, "labels of a batch"))
    throw Error("output '" + judged.output + "' is " + to_string(output) + ", its labels '" + judged.labels + "' are " +
                to_string(labels) + ": measures want " + std::to_string(expected) + " for a sample");
  return shape;
}

Tally make_tally(const JudgedOutput& judged, const JudgedShape& shape, uint8_t parts) {
  Tally tally;
  tally.parts = parts;
  if (judged.meaning == OutputMeaning::values) {
    tally.form = Tally::values;
    if (parts & kColumns) tally.columns.resize(static_cast<size_t>(shape.inner));
    return tally;
  }
  const bool binary = !is_of_classes(judged.meaning) && shape.classes == 1;
  const auto classes = static_cast<size_t>(binary ? 2 : shape.classes);
  tally.form = is_of_classes(judged.meaning) || binary ? Tally::classes : Tally::labels;
  tally.right.resize(classes), tally.guessed.resize(classes), tally.actual.resize(classes);
  if (parts & kConfusion) tally.confusion.resize(classes * classes);
  if (parts & kScores) tally.scores.resize(static_cast<size_t>(shape.classes)), tally.holds = {};
  if ((parts & kScores) && !is_of_classes(judged.meaning)) tally.holds.resize(static_cast<size_t>(shape.classes));
  return tally;
}

int64_t score_bytes(const Tally& tally, const JudgedShape& shape, int64_t samples) {
  if (!(tally.parts & kScores)) return 0;
  const int64_t labels = checked_mul(samples, shape.positions(), "labels of an evaluation");
  const int64_t a_label = checked_mul(shape.classes, int64_t{sizeof(double)}, "scores of a label");
  return checked_mul(labels, a_label, "scores of an evaluation");
}

void add_batch(Tally& tally, const JudgedOutput& judged, const JudgedShape& shape, std::span<const float> scores,
               DType type, std::span<const std::byte> labels, int64_t rows, int64_t sample) {
  const auto label_bytes = static_cast<size_t>(size_of(type));
  if (judged.meaning == OutputMeaning::values) {
    const auto columns = static_cast<size_t>(shape.inner);
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row)
      take_values(tally, scores.subspan(row * columns, columns), type, labels.data() + row * columns * label_bytes,
                  sample + static_cast<int64_t>(row));
    return;
  }
  const bool of_classes = is_of_classes(judged.meaning);
  const double threshold = judged.meaning == OutputMeaning::label_probabilities ? 0.5 : 0;
  std::vector<double> truth(static_cast<size_t>(shape.classes));
  const auto label_at = [&](int64_t index) {
    return load_as_double(type, labels.data() + static_cast<size_t>(index) * label_bytes);
  };
  const auto take = [&](int64_t group, int64_t inner, const float* at) {
    const int64_t from = sample + group / shape.outer;
    if (of_classes) {
      const auto label = static_cast<int64_t>(label_at(group * shape.inner + inner));
      if (judged.ignored != label) take_classes(tally, judged.meaning, {at, shape.classes}, label, from);
      return;
    }
    for (int64_t c = 0; c < shape.classes; ++c) {
      const double label = label_at((group * shape.classes + c) * shape.inner + inner);
      const bool counts = !judged.ignored || label != static_cast<double>(*judged.ignored);
      truth[static_cast<size_t>(c)] = counts ? label : kNaN;
    }
    take_labels(tally, threshold, {at, shape.classes}, truth, from);
  };
  // Where classes lie a plane apart, those of some positions are put side by side first.
  const int64_t most = std::min<int64_t>(shape.inner, kPositionsAtOnce);
  std::vector<float> side_by_side(static_cast<size_t>(shape.inner > 1 ? most * shape.classes : 0));
  for (int64_t group = 0; group < rows * shape.outer; ++group) {
    const float* const first = scores.data() + group * shape.classes * shape.inner;
    if (shape.inner == 1) {
      take(group, 0, first);
      continue;
    }
    for (int64_t begin = 0; begin < shape.inner; begin += most) {
      const int64_t count = std::min(most, shape.inner - begin);
      for (int64_t c = 0; c < shape.classes; ++c)
        for (int64_t i = 0; i < count; ++i)
          side_by_side[static_cast<size_t>(i * shape.classes + c)] = first[c * shape.inner + begin + i];
      for (int64_t i = 0; i < count; ++i) take(group, begin + i, side_by_side.data() + i * shape.classes);
    }
  }
}

double area_under_curve(std::span<const double> scores, const std::vector<bool>& holds) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  double ranks = 0, positives = 0;  // of those that hold, from 1; equal scores share the mean of theirs
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    double here = 0;
    while (end < order.size() && scores[order[end]] == scores[order[begin]]) here += holds[order[end++]];
    ranks += here * (static_cast<double>(begin + 1 + end) / 2), positives += here;
    begin = end;
  }
  const double negatives = static_cast<double>(order.size()) - positives;
  if (positives == 0 || negatives == 0) return kNaN;
  return (ranks - positives * (positives + 1) / 2) / (positives * negatives);
}

}  // namespace halfstep
