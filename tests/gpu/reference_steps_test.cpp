#include "tests/compiled_torch_steps.h"
#include "tests/gpu/gpu_test.h"
#include "tests/loss_scale_rules.h"
#include "tests/torch_losses.h"

namespace halfstep {
namespace {

class TorchStepsOnTheGpu : public GpuTest {};

TEST_F(TorchStepsOnTheGpu, TwentyStepsOfEveryOptimizer) {
  expect_recorded_trajectories(compiled_for(DeviceKind::cuda));
}
TEST_F(TorchStepsOnTheGpu, TwentyStepsOfEveryOtherOptimizer) {
  expect_recorded_optimizers(compiled_for(DeviceKind::cuda), 5e-6);
}
TEST_F(TorchStepsOnTheGpu, EveryLossScaleTrace) { expect_recorded_loss_scales(compiled_for(DeviceKind::cuda)); }
TEST_F(TorchStepsOnTheGpu, EveryLoss) { expect_recorded_losses(compiled_for(DeviceKind::cuda)); }
TEST_F(TorchStepsOnTheGpu, AScaleForEachLoss) { expect_recorded_scales_of_each(compiled_for(DeviceKind::cuda)); }
TEST_F(TorchStepsOnTheGpu, SeveralWeightedLosses) { expect_recorded_several_losses(compiled_for(DeviceKind::cuda)); }
TEST_F(TorchStepsOnTheGpu, LossScalesFollowTorchAndDeepSpeed) {
  expect_torch_rule(compiled_for(DeviceKind::cuda), {.runs = 4});
  expect_deepspeed_rule(compiled_for(DeviceKind::cuda), {.runs = 4});
}

}  // namespace
}  // namespace halfstep
