// Small exported models of every family, in every form, train on the CPU as PyTorch trains them.
#include "tests/family_runs.h"

namespace halfstep {
namespace {

class FamiliesOnTheCpu : public testing::TestWithParam<FamilyCase> {};

TEST_P(FamiliesOnTheCpu, LossesAndGradientsArePyTorchs) { check_family(GetParam(), DeviceKind::cpu); }

INSTANTIATE_TEST_SUITE_P(, FamiliesOnTheCpu, testing::ValuesIn(family_cases()),
                         [](const auto& c) { return c.param.name + "_" + c.param.form; });

}  // namespace
}  // namespace halfstep
