#include "tests/compiled_torch_steps.h"
#include "tests/loss_scale_rules.h"
#include "tests/torch_losses.h"

namespace halfstep {
namespace {

TEST(TorchStepsOnTheCpu, TwentyStepsOfEveryOptimizer) { expect_recorded_trajectories(compiled_for(DeviceKind::cpu)); }
TEST(TorchStepsOnTheCpu, TwentyStepsOfEveryOtherOptimizer) {
  expect_recorded_optimizers(compiled_for(DeviceKind::cpu), 1e-6);
}
TEST(TorchStepsOnTheCpu, EveryLossScaleTrace) { expect_recorded_loss_scales(compiled_for(DeviceKind::cpu)); }
TEST(TorchStepsOnTheCpu, EveryLoss) { expect_recorded_losses(compiled_for(DeviceKind::cpu)); }
TEST(TorchStepsOnTheCpu, AScaleForEachLoss) { expect_recorded_scales_of_each(compiled_for(DeviceKind::cpu)); }
TEST(TorchStepsOnTheCpu, SeveralWeightedLosses) { expect_recorded_several_losses(compiled_for(DeviceKind::cpu)); }
TEST(LossScaleRulesOnTheCpu, OfTorchOnRandomOverflows) {
  expect_torch_rule(compiled_for(DeviceKind::cpu), {.runs = 8});
}
TEST(LossScaleRulesOnTheCpu, OfDeepSpeedOnRandomOverflows) {
  expect_deepspeed_rule(compiled_for(DeviceKind::cpu), {.runs = 8});
}

}  // namespace
}  // namespace halfstep
