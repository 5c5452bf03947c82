#include "tests/compiled_torch_steps.h"

namespace halfstep {
namespace {

TEST(TorchStepsOnTheCpu, TwentyStepsOfEveryOptimizer) { expect_recorded_trajectories(compiled_for(DeviceKind::cpu)); }
TEST(TorchStepsOnTheCpu, EveryLossScaleTrace) { expect_recorded_loss_scales(compiled_for(DeviceKind::cpu)); }

}  // namespace
}  // namespace halfstep
