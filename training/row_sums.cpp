#include "training/row_sums.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace halfstep {
namespace {

double sum_rows(const Tensor& values, int64_t rows) {
  require(values.type.dtype == DType::f32 && values.type.element_count() >= rows, "one f32 per row");
  const std::span<const float> valid = values.as<float>().first(static_cast<size_t>(rows));
  return std::accumulate(valid.begin(), valid.end(), 0.0);
}

void add_rows(LossSums& sums, const NamedTensors& outputs, int64_t rows, const auto& named) {
  sums.loss += sum_rows(outputs.at(named(kRowLoss)), rows);
  if (const auto correct = outputs.find(named(kRowCorrect)); correct != outputs.end())
    sums.correct = sums.correct.value_or(0) + sum_rows(correct->second, rows);
  const auto counted = outputs.find(named(kRowCounted));
  const double labels = counted == outputs.end() ? static_cast<double>(rows) : sum_rows(counted->second, rows);
  const auto weighed = outputs.find(named(kRowWeighed));
  sums.counted += weighed == outputs.end() ? labels : sum_rows(weighed->second, rows), sums.judged += labels;
}

// The mean loss of each judged output.
std::vector<double> judged_losses(const StepNotes& notes, const Evaluation& evaluation) {
  std::vector<double> losses;
  for (const JudgedOutput& judged : notes.judged) {
    const auto row = std::ranges::find(evaluation.losses, judged.loss, &LossRow::name);
    losses.push_back(row == evaluation.losses.end() ? evaluation.loss : row->loss);
  }
  return losses;
}

}  // namespace

void RowSums::add(const NamedTensors& outputs, const Measures::Labels& labels, int64_t rows) {
  if (!outputs.contains(kRowLoss)) throw Error("program 'evaluate' has no output 'row_loss': compile the model again");
  measures_.add(outputs, labels, rows, samples_);
  add_rows(all_, outputs, rows, [](const OwnName& measure) -> Name { return measure; });
  for (size_t i = 0; outputs.contains(of_loss(kRowLoss, i)); ++i) {
    if (each_.size() == i) each_.emplace_back();
    add_rows(each_[i], outputs, rows, [i](const OwnName& measure) { return of_loss(measure, i); });
  }
  samples_ += rows;
}

Evaluation RowSums::evaluation() const {
  Evaluation evaluation;
  evaluation.samples = samples_;
  evaluation.losses = loss_rows(notes_.losses, each_);
  const bool several = !evaluation.losses.empty();
  evaluation.loss = several ? total_loss(evaluation.losses) : all_.mean();
  evaluation.accuracy = several ? first_accuracy(evaluation.losses) : all_.accuracy();
  evaluation.measures = measures_.report(judged_losses(notes_, evaluation));
  return evaluation;
}

}  // namespace halfstep
