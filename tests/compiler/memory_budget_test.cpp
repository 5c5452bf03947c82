// A step within a memory budget computes what it computes without one, bit for bit.
#include <gmock/gmock.h>

#include "tests/family_runs.h"

namespace halfstep {
namespace {

class StepsWithinABudget : public testing::TestWithParam<FamilyCase> {};

struct Steps {
  std::vector<double> losses;
  ModelState state;
};

Steps run_steps(CompiledModel model, const NamedTensors& inputs) {
  const std::unique_ptr<Executor> executor = make_executor(std::move(model), kTestExecutor);
  Steps steps;
  for (int i = 0; i < 2; ++i) steps.losses.push_back(run_program(*executor, "train", inputs).at(kLoss).at(0));
  steps.state = read_model_state(*executor);
  return steps;
}

TEST_P(StepsWithinABudget, ComputeTheSameBits) {
  const nlohmann::json reference = family_reference(GetParam());
  const NamedTensors inputs = family_inputs(reference);
  Recipe recipe = family_recipe(GetParam(), reference, "fp16");
  recipe.dropout = 0.25;
  CompiledTraining unlimited = compile_training(recipe, DeviceKind::cpu);
  EXPECT_FALSE(unlimited.report.recomputation);
  const int64_t states = unlimited.report.state_bytes, values = unlimited.report.scratch_bytes;
  const Steps expected = run_steps(std::move(unlimited.model), inputs);
  int64_t computed_again = 0;
  for (const int64_t share : {90, 75, 60}) {
    recipe.memory_budget = ByteSize{states + values * share / 100};
    std::optional<CompiledTraining> limited;
    try {
      limited = compile_training(recipe, DeviceKind::cpu);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("give more, or a smaller batch"));
      break;
    }
    EXPECT_LE(limited->report.state_bytes + limited->report.scratch_bytes, recipe.memory_budget->bytes);
    computed_again += limited->report.recomputation->values;
    const Steps found = run_steps(std::move(limited->model), inputs);
    EXPECT_EQ(found.losses, expected.losses) << share;
    for (const auto& [name, value] : expected.state.weights)
      EXPECT_EQ(found.state.weights.at(name), value) << name << " " << share;
    for (const auto& [name, value] : expected.state.slots)
      EXPECT_EQ(found.state.slots.at(name), value) << name << " " << share;
  }
  EXPECT_GT(computed_again, 0);
}

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
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("memory_budget is 0.00 GiB"),
                                             testing::HasSubstr("the largest values are f16[16,")));
  }
}

}  // namespace
}  // namespace halfstep
