// How the loss is scaled so that small gradients survive f16. Shared by differentiate, which scales, and add_update,
// which unscales, skips a step that overflowed, and moves the scale.
#pragma once

#include <cstdint>

#include "ir/builder.h"

namespace halfstep {

enum class LossScaleMode : uint8_t {
  none,     // no scale, no overflow check
  fixed,    // `initial` throughout; a step that overflows is skipped
  dynamic,  // torch.amp.GradScaler's rule on the slots "loss_scale.scale", "loss_scale.tracker", with a floor, and with
            // hysteresis DeepSpeed's on "loss_scale.hysteresis"
};

struct LossScaling {
  LossScaleMode mode = LossScaleMode::dynamic;
  double initial = 65536;
  double growth = 2, backoff = 0.5;
  int64_t interval = 2000;  // steps without overflow until the scale grows
  double floor = 1;
  // The overflow from which on the scale backs off, DeepSpeed's delayed_shift: those before it only cost their step.
  // All of them are spared again when the scale grows, or after every step without overflow.
  int64_t hysteresis = 1;
  enum Spares : uint8_t { after_growth, after_each_step } spares = after_growth;
};

// The scale of this step, f32[].
Value loss_scale(Builder& builder, const LossScaling& scaling);

}  // namespace halfstep
