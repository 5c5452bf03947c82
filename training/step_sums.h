// Sums over the batches of one optimizer step, from what its programs put out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/tensor.h"
#include "program/notes.h"
#include "training/loss_sums.h"

namespace halfstep {

inline std::optional<double> scalar_output(const NamedTensors& outputs, const Name& name) {
  const auto found = outputs.find(name);
  return found == outputs.end() ? std::nullopt : std::optional(found->second.at(0));
}

struct StepSums : LossSums {
  std::vector<LossSums> each;  // of several losses

  void add(const NamedTensors& outputs, int64_t batch) {
    require(outputs.contains(kLoss), "a step's result holds its loss");
    add(*this, outputs, batch, [](const OwnName& measure) -> Name { return measure; });
    for (size_t i = 0; outputs.contains(of_loss(kLoss, i)); ++i) {
      if (each.size() == i) each.emplace_back();
      add(each[i], outputs, batch, [i](const OwnName& measure) { return of_loss(measure, i); });
    }
  }
  double mean_loss() const { return mean(); }

 private:
  static void add(LossSums& sums, const NamedTensors& outputs, int64_t batch, const auto& named) {
    if (const std::optional<double> c = scalar_output(outputs, named(kCorrect)))
      sums.correct = sums.correct.value_or(0) + *c;
    const double judged = scalar_output(outputs, named(kCounted)).value_or(static_cast<double>(batch));
    const double counted = scalar_output(outputs, named(kWeighed)).value_or(judged);
    sums.counted += counted, sums.judged += judged;
    sums.loss += scalar_output(outputs, named(kLoss)).value_or(0) * counted;
  }
};

}  // namespace halfstep
