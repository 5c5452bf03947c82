// What two runs of the same steps say of the precision of one of them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compiler/doctor.h"

namespace halfstep {

class Judge {
 public:
  explicit Judge(DType low) : low_(low) {}

  // By tensor of `low`, which is compared with the one of `full` with its name. `spread`: how far gradients of fp32
  // runs are from each other whose weights are disturbed: no more digits are there to be lost.
  std::vector<Difference> differences(const RunOfSteps& full, const RunOfSteps& low, const TensorErrors& spread) const;
  // Widens `spread` by a run of fp32 whose weights were disturbed.
  void widen(TensorErrors& spread, const RunOfSteps& full, const RunOfSteps& disturbed) const;
  // In the order in which tensors are computed: those that differ though what they are computed of does not.
  std::vector<Symptom> findings(const Examination& e, const LossBand& band, const CompiledModel& model) const;
  void fit_scale(const RunOfSteps& full, const RunOfSteps& low, std::optional<double>& scale,
                 std::string& limiting) const;

 private:
  double noise_of_sum(const RunOfSteps& full, const Tap& tap) const;
  Difference difference(const TensorReading& low, const TensorReading& full, double floor, double noise) const;
  bool is_off(const Difference& d) const;
  Symptom of_tensor(const Examination& e, size_t tensor) const;
  Symptom finding(const Examination& e, size_t tensor) const;
  void later_overflow(const Examination& e, std::vector<Symptom>& found) const;
  void weights_beyond(const CompiledModel& model, const Examination& e, std::vector<Symptom>& found) const;
  void vanishing_updates(const Examination& e, std::vector<Symptom>& found) const;
  void limits_of_scale(const Examination& e, std::vector<Symptom>& found) const;
  void loss_curve(const Examination& e, const LossBand& band, std::vector<Symptom>& found) const;
  double largest() const { return low_ == DType::f16 ? 65504 : 0x1.fep127; }

  DType low_;
};

}  // namespace halfstep
