#include "passes/training/loss_scaling.h"

namespace halfstep {

Value loss_scale(Builder& builder, const LossScaling& scaling) {
  switch (scaling.mode) {
    case LossScaleMode::dynamic:
      return builder.state(kLossScaleState, {DType::f32, {}});
    case LossScaleMode::fixed:
      return builder.constant(DType::f32, scaling.initial);
    case LossScaleMode::none:
      break;
  }
  return builder.constant(DType::f32, 1);
}

}  // namespace halfstep
