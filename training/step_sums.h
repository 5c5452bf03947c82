// Sums over the batches of one optimizer step, from what its programs put out.
#pragma once

#include <cstdint>
#include <optional>

#include "base/error.h"
#include "base/tensor.h"

namespace halfstep {

inline std::optional<double> scalar_output(const NamedTensors& outputs, const Name& name) {
  const auto found = outputs.find(name);
  return found == outputs.end() ? std::nullopt : std::optional(found->second.at(0));
}

struct StepSums {
  double loss = 0;     // over the labels that count
  double counted = 0;  // how many these are; samples, where all labels count
  std::optional<double> correct{};

  void add(const NamedTensors& outputs, int64_t batch) {
    const std::optional<double> batch_loss = scalar_output(outputs, kLoss);
    require(batch_loss.has_value(), "a step's result holds its loss");
    if (const std::optional<double> c = scalar_output(outputs, kCorrect)) correct = correct.value_or(0) + *c;
    const double batch_counted = scalar_output(outputs, kCounted).value_or(static_cast<double>(batch));
    counted += batch_counted;
    loss += *batch_loss * batch_counted;
  }
  double mean_loss() const { return counted > 0 ? loss / counted : loss; }
};

}  // namespace halfstep
