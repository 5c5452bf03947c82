#include "tests/gpu/gpu_test.h"
#include "tests/memory_budget_runs.h"

namespace halfstep {
namespace {

class StepsWithinABudgetOnTheGpu : public GpuTest, public testing::WithParamInterface<FamilyCase> {};

// A library may choose another algorithm for the same product; in f16 two steps of mobilenet_v2 then differ as its
// momentum does when inputs move by 5e-4: by a twentieth.
TEST_P(StepsWithinABudgetOnTheGpu, ComputeTheSame) {
  check_steps_within_a_budget(GetParam(), "fp32", DeviceKind::cuda, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(, StepsWithinABudgetOnTheGpu,
                         testing::Values(FamilyCase{"mobilenet_v2", "ts17"}, FamilyCase{"squeezenet", "ts17"},
                                         FamilyCase{"unet", "ts17"}),
                         [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace halfstep
