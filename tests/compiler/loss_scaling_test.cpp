#include "tests/loss_scaling_runs.h"

namespace halfstep {
namespace {

TEST(LossScalingOnTheCpu, AnOverflowChangesOnlyTheScale) { check_overflow_changes_only_the_scale(DeviceKind::cpu); }
TEST(LossScalingOnTheCpu, WhatUnderflowsDoesNotTrainWithoutIt) { check_underflow_needs_the_scale(DeviceKind::cpu); }

}  // namespace
}  // namespace halfstep
