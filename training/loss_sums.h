// What is added up of a loss, and what is told of each of several.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/token_feed.h"
#include "program/notes.h"

namespace halfstep {

struct LossSums {
  double loss = 0;     // over the labels that count
  double counted = 0;  // how many these are, or what they weigh; samples, where all labels count
  std::optional<double> correct{};
  double judged = 0;  // labels that could be correct: `counted`, and those of skipped steps

  double mean() const { return counted > 0 ? loss / counted : loss; }
  std::optional<double> accuracy() const {
    return correct && judged > 0 ? std::optional(*correct / judged) : std::nullopt;
  }
  LossSums& operator+=(const LossSums& other) {
    loss += other.loss, counted += other.counted;
    add_accuracy(other);
    return *this;
  }
  void add_accuracy(const LossSums& other) {
    judged += other.judged;
    if (other.correct) correct = correct.value_or(0) + *other.correct;
  }
  friend bool operator==(const LossSums&, const LossSums&) = default;
};

// One of several losses in a row of a report.
struct LossRow {
  std::string name;
  double weight = 1, loss = 0;
  std::optional<double> accuracy{};
  std::optional<double> loss_scale{};  // its own, where each loss has one
  bool overflowed = false;             // at that scale
};
inline std::vector<LossRow> loss_rows(const std::vector<LossNote>& notes, std::span<const LossSums> sums) {
  std::vector<LossRow> rows;
  for (size_t i = 0; i < notes.size() && i < sums.size(); ++i)
    rows.push_back({notes[i].name, notes[i].weight, sums[i].mean(), sums[i].accuracy(), {}, false});
  return rows;
}
// The weighted sum, and the accuracy of the first that has one.
inline double total_loss(std::span<const LossRow> rows) {
  double total = 0;
  for (const LossRow& row : rows)
    if (row.weight != 0) total += row.weight * row.loss;
  return total;
}
inline std::optional<double> first_accuracy(std::span<const LossRow> rows) {
  for (const LossRow& row : rows)
    if (row.accuracy) return row.accuracy;
  return std::nullopt;
}
// The loss that measures of tokens are made of: of several, the first whose labels are the tokens.
inline std::optional<double> token_loss(const std::vector<LossNote>& notes, std::span<const LossRow> rows,
                                        double loss) {
  if (notes.empty()) return loss;
  for (size_t i = 0; i < notes.size() && i < rows.size(); ++i)
    if (notes[i].classes > 0 && notes[i].labels == kTokenLabels) return rows[i].loss;
  return std::nullopt;
}

}  // namespace halfstep
