// A step within a memory budget computes what it computes without one, bit for bit.
#include "tests/memory_budget_runs.h"

namespace halfstep {
namespace {

class StepsWithinABudget : public testing::TestWithParam<FamilyCase> {};

TEST_P(StepsWithinABudget, ComputeTheSameBits) { check_steps_within_a_budget(GetParam(), "fp16", DeviceKind::cpu, 0); }

INSTANTIATE_TEST_SUITE_P(, StepsWithinABudget,
                         testing::Values(FamilyCase{"bert", "ts17"}, FamilyCase{"lstm", "ts17"},
                                         FamilyCase{"mobilenet_v2", "ts17"}, FamilyCase{"squeezenet", "ts17"},
                                         FamilyCase{"unet", "ts17"}),
                         [](const auto& c) { return c.param.name; });

TEST(MemoryBudget, IsRefusedWithTheLargestValuesWhereItIsTooSmall) {
  Recipe recipe;
  recipe.model = (source_directory() / "models/lenet.onnx").string();
  recipe.batch = 16;
  recipe.init = "absent";
  recipe.memory_budget = ByteSize{500000};
  try {
    compile_training(recipe, DeviceKind::cpu);
    ADD_FAILURE() << "it is accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("memory_budget is 488.3 KiB"),
                                             testing::HasSubstr("the largest values are f16[16,")));
  }
}

}  // namespace
}  // namespace halfstep
