#include "tests/gpu/gpu_test.h"
#include "tests/loss_scaling_runs.h"

namespace halfstep {
namespace {

class LossScalingOnTheGpu : public GpuTest {};

TEST_F(LossScalingOnTheGpu, AnOverflowChangesOnlyTheScale) { check_overflow_changes_only_the_scale(DeviceKind::cuda); }
TEST_F(LossScalingOnTheGpu, WhatUnderflowsDoesNotTrainWithoutIt) { check_underflow_needs_the_scale(DeviceKind::cuda); }

}  // namespace
}  // namespace halfstep
