// Whole models on the CPU against recorded PyTorch runs, and every export of a model against the others.
#include "tests/reference_runs.h"

namespace halfstep {
namespace {

class ReferenceModelsOnTheCpu : public testing::TestWithParam<const char*> {};

TEST_P(ReferenceModelsOnTheCpu, LogitsGradientsAndLosses) { check_reference({GetParam(), "ts17"}, DeviceKind::cpu); }

INSTANTIATE_TEST_SUITE_P(, ReferenceModelsOnTheCpu, testing::Values("mlp", "lenet", "resnet18", "squeezenet1_1"),
                         [](const auto& name) { return std::string(name.param); });

// squeezenet1_1.dynamo and resnet18.dynamo lack biases and batch norms, which that exporter folded away.
TEST(ReferenceExports, OtherExportersTrainTheSame) {
  const std::map<std::string, std::vector<ReferenceCase>> others{
      {"mlp", {{"mlp", "dynamo"}}},
      {"lenet", {{"lenet", "dynamo"}, {"lenet", "raw"}, {"lenet", "autocast", "m."}}},
      {"resnet18", {{"resnet18", "raw"}, {"resnet18", "autocast", "m."}}}};
  for (const auto& [model, forms] : others) {
    const nlohmann::json reference = recorded(model);
    const ReferenceRun expected = run_reference({model, "ts17"}, reference, "fp16", DeviceKind::cpu, 1);
    for (const ReferenceCase& other : forms) {
      SCOPED_TRACE(model + "." + other.form);
      const ReferenceRun found = run_reference(other, reference, "fp16", DeviceKind::cpu, 1);
      EXPECT_EQ(found.losses, expected.losses);
      EXPECT_EQ(found.logits, expected.logits);
      EXPECT_EQ(found.gradients, expected.gradients);
    }
  }
}

}  // namespace
}  // namespace halfstep
