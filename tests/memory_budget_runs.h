// A step within a memory budget beside the same step without one.
#pragma once

#include <gmock/gmock.h>

#include "tests/family_runs.h"

namespace halfstep {

struct StepResults {
  std::vector<double> losses;
  ModelState state;
};

inline StepResults run_two_steps(CompiledModel model, const NamedTensors& inputs) {
  const std::unique_ptr<Executor> executor = make_executor(std::move(model), {.threads = 1, .autotune = 1});
  StepResults steps;
  for (int i = 0; i < 2; ++i) steps.losses.push_back(run_program(*executor, "train", inputs).at(kLoss).at(0));
  steps.state = read_model_state(*executor);
  return steps;
}

// Losses, weights and optimizer slots of both, within `tolerance` of the largest weight or slot; 0: bit for bit.
inline void expect_same_steps(const StepResults& found, const StepResults& expected, double tolerance) {
  for (size_t i = 0; i < expected.losses.size(); ++i)
    EXPECT_NEAR(found.losses[i], expected.losses[i], tolerance * std::abs(expected.losses[i]));
  const auto same = [&](const FileTensors& a, const FileTensors& b) {
    double largest = 0;
    for (const auto& [name, value] : b)
      for (const double v : value.values()) largest = std::max(largest, std::abs(v));
    for (const auto& [name, value] : b) {
      const std::vector<double> x = a.at(name).values(), y = value.values();
      double farthest = 0;
      for (size_t i = 0; i < y.size(); ++i) farthest = std::max(farthest, std::abs(x[i] - y[i]));
      EXPECT_LE(farthest, tolerance * largest) << name;
    }
  };
  same(found.state.weights, expected.state.weights);
  same(found.state.slots, expected.state.slots);
}

// At 90, 75 and 60 % of the memory that the values of a step with dropout need at once, as far down as there is
// a plan.
inline void check_steps_within_a_budget(const FamilyCase& family, const std::string& precision, DeviceKind device,
                                        double tolerance) {
  const nlohmann::json reference = family_reference(family);
  const NamedTensors inputs = family_inputs(reference);
  Recipe recipe = family_recipe(family, reference, precision);
  recipe.dropout = 0.25;
  CompiledTraining unlimited = compile_training(recipe, device);
  EXPECT_FALSE(unlimited.report.recomputation);
  const int64_t states = unlimited.report.state_bytes, values = unlimited.report.scratch_floor;
  const StepResults expected = run_two_steps(std::move(unlimited.model), inputs);
  int64_t computed_again = 0;
  for (const int64_t share : {90, 75, 60}) {
    SCOPED_TRACE(share);
    recipe.memory_budget = ByteSize{states + values * share / 100};
    std::optional<CompiledTraining> limited;
    try {
      limited = compile_training(recipe, device);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("give more, or a smaller batch"));
      break;
    }
    EXPECT_LE(limited->report.state_bytes + limited->report.scratch_bytes, recipe.memory_budget->bytes);
    computed_again += limited->report.recomputation->values;
    expect_same_steps(run_two_steps(std::move(limited->model), inputs), expected, tolerance);
  }
  EXPECT_GT(computed_again, 0);
}

}  // namespace halfstep
