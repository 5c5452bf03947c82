#include "tests/compiled_torch_steps.h"
#include "tests/gpu/gpu_test.h"

namespace halfstep {
namespace {

class TorchStepsOnTheGpu : public GpuTest {};

TEST_F(TorchStepsOnTheGpu, TwentyStepsOfEveryOptimizer) {
  expect_recorded_trajectories(compiled_for(DeviceKind::cuda));
}
TEST_F(TorchStepsOnTheGpu, EveryLossScaleTrace) { expect_recorded_loss_scales(compiled_for(DeviceKind::cuda)); }

}  // namespace
}  // namespace halfstep
