// Whole models on the GPU against recorded PyTorch runs.
#include "tests/gpu/gpu_test.h"
#include "tests/reference_runs.h"

namespace halfstep {
namespace {

class ReferenceModelsOnTheGpu : public GpuTest, public testing::WithParamInterface<const char*> {};

TEST_P(ReferenceModelsOnTheGpu, LogitsGradientsAndLosses) { check_reference({GetParam(), "ts17"}, DeviceKind::cuda); }

INSTANTIATE_TEST_SUITE_P(, ReferenceModelsOnTheGpu, testing::Values("mlp", "lenet", "resnet18", "squeezenet1_1"),
                         [](const auto& name) { return std::string(name.param); });

}  // namespace
}  // namespace halfstep
