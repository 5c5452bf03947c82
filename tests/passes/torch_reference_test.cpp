// Optimizers and loss scale against what PyTorch recorded, through the interpreter.
#include <gtest/gtest.h>

#include "passes/rewrite/rules.h"
#include "tests/loss_scale_rules.h"
#include "tests/passes/stepper.h"
#include "tests/torch_losses.h"

namespace halfstep {
namespace {

class InterpretedStep : public TrainingStep {
 public:
  InterpretedStep(const Graph& model, const LossOptions& loss, const OptimizerOptions& optimizer,
                  const FileTensors& parameters)
      : graphs_(training_step(attach_loss(model, loss), optimizer)),
        stepper_(graphs_.train, initial(optimizer, parameters)) {}

  std::map<Name, double> run(const NamedTensors& inputs) override { return stepper_.step(inputs); }
  double scalar_state(const Name& name) override { return stepper_.at(name); }
  FileTensors parameters() override { return taken_from(kParameterArena); }
  FileTensors average() override { return taken_from(kAverageArena); }

 private:
  FileTensors taken_from(const Name& arena) const {
    FileTensors result;
    for (const ArenaSlice& slice : graphs_.layout.slices) {
      Tensor value(TensorType{DType::f32, slice.shape});
      for (int64_t i = 0; i < slice.size(); ++i) value.set(i, stepper_.at(arena, slice.offset + i));
      result[slice.name] = slice.permutation.empty() ? value : value.transpose(inverse(slice.permutation));
    }
    return result;
  }

  NamedTensors initial(const OptimizerOptions& optimizer, const FileTensors& parameters) const {
    NamedTensors states = initial_states(optimizer);
    Tensor& arena = states[kParameterArena] = Tensor(TensorType{DType::f32, {graphs_.layout.size}});
    for (const ArenaSlice& slice : graphs_.layout.slices)
      for (int64_t i = 0; const double v : stored(parameters.at(slice.name), slice).values())
        arena.set(slice.offset + i++, v);
    return states;
  }

  static Tensor stored(const Tensor& value, const ArenaSlice& slice) {
    return slice.permutation.empty() ? value : value.transpose(slice.permutation);
  }

  const StepGraphs graphs_;
  Stepper stepper_;
};

std::unique_ptr<TrainingStep> interpreted(const Graph& model, const LossOptions& loss,
                                          const OptimizerOptions& optimizer, const FileTensors& parameters) {
  return std::make_unique<InterpretedStep>(model, loss, optimizer, parameters);
}

TEST(TorchReference, TwentyStepsOfEveryOptimizer) { expect_recorded_trajectories(interpreted); }
TEST(TorchReference, TwentyStepsOfEveryOtherOptimizer) { expect_recorded_optimizers(interpreted, 1e-6); }
TEST(TorchReference, EveryLossScaleTrace) { expect_recorded_loss_scales(interpreted); }
TEST(TorchReference, EveryLoss) { expect_recorded_losses(interpreted); }
TEST(TorchReference, AScaleForEachLoss) { expect_recorded_scales_of_each(interpreted); }
TEST(TorchReference, SeveralWeightedLosses) { expect_recorded_several_losses(interpreted); }
TEST(LossScaleRules, OfTorchOnRandomOverflows) { expect_torch_rule(interpreted, {.runs = 200}); }
TEST(LossScaleRules, OfDeepSpeedOnRandomOverflows) { expect_deepspeed_rule(interpreted, {.runs = 200}); }

}  // namespace
}  // namespace halfstep
