#include "passes/training/loss_scaling.h"

namespace halfstep {

std::vector<LossIndex> backwards(const LossScaling& scaling) {
  if (scaling.losses.empty()) return {std::nullopt};
  std::vector<LossIndex> losses;
  for (size_t i = 0; i < scaling.losses.size(); ++i)
    if (scaling.losses[i] != 0) losses.emplace_back(i);
  return losses;
}

Name of(const OwnName& own, const LossIndex& loss) { return loss ? of_loss(own, *loss) : Name(own); }

Name gradient_name(const std::string& parameter, const LossIndex& loss) {
  return {Role::gradient, loss ? std::to_string(*loss) + "/" + parameter : parameter};
}

Value loss_scale(Builder& builder, const LossScaling& scaling, const LossIndex& loss) {
  switch (scaling.mode) {
    case LossScaleMode::dynamic:
      return builder.state(scaling.scales == LossScaling::of_each ? of(kLossScaleState, loss) : Name(kLossScaleState),
                           {DType::f32, {}});
    case LossScaleMode::fixed:
      return builder.constant(DType::f32, scaling.initial);
    case LossScaleMode::none:
      break;
  }
  return builder.constant(DType::f32, 1);
}

}  // namespace halfstep
