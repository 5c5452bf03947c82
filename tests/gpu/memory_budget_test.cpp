#include "tests/gpu/gpu_test.h"
#include "tests/memory_budget_runs.h"

namespace halfstep {
namespace {

class StepsWithinABudgetOnTheGpu : public GpuTest, public testing::WithParamInterface<FamilyCase> {};

// A library may choose another algorithm for the same product.
TEST_P(StepsWithinABudgetOnTheGpu, ComputeTheSame) { check_steps_within_a_budget(GetParam(), DeviceKind::cuda, 1e-2); }

INSTANTIATE_TEST_SUITE_P(, StepsWithinABudgetOnTheGpu, testing::ValuesIn(families_short_of_memory()),
                         [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace halfstep
