// How the loss is scaled so that small gradients survive f16. Shared by differentiate, which scales, and add_update,
// which unscales, skips a step that overflowed, and moves the scale.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

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
  // Weights of several losses that have a backward each, whose gradients are unscaled and added in f32; empty: one
  // backward of their sum. Of weight 0: none.
  std::vector<double> losses = {};
  // Their scale: one, or one of each with its own tracker and its own overflows. A step is skipped if any overflows.
  enum Scales : uint8_t { shared, of_each } scales = shared;
};

// One of several losses with a backward each; nullopt: the sum of all.
using LossIndex = std::optional<size_t>;
// What has a backward.
std::vector<LossIndex> backwards(const LossScaling& scaling);
// `own` of the loss.
Name of(const OwnName& own, const LossIndex& loss);
// Where differentiate leaves the gradient of a parameter.
Name gradient_name(const std::string& parameter, const LossIndex& loss);

// The scale of this step, f32[].
Value loss_scale(Builder& builder, const LossScaling& scaling, const LossIndex& loss);

}  // namespace halfstep
