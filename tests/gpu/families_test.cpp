// Small exported models of every family, in every form, train on the GPU as PyTorch trains them.
#include "tests/family_runs.h"
#include "tests/gpu/gpu_test.h"

namespace halfstep {
namespace {

class FamiliesOnTheGpu : public GpuTest, public testing::WithParamInterface<FamilyCase> {};

TEST_P(FamiliesOnTheGpu, LossesAndGradientsArePyTorchs) { check_family(GetParam(), DeviceKind::cuda); }

INSTANTIATE_TEST_SUITE_P(, FamiliesOnTheGpu, testing::ValuesIn(family_cases()),
                         [](const auto& c) { return c.param.name + "_" + c.param.form; });

}  // namespace
}  // namespace halfstep
