// Names of the optimizers' slots.
#pragma once

#include "base/name.h"

namespace halfstep {

inline constexpr OwnName kMomentumArena{Role::slot, "momentum"}, kAdamSecond{Role::slot, "adam.v"},
    kAdamStep{Role::slot, "adam.step"};

}  // namespace halfstep
