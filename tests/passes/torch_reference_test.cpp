// Optimizers and loss scale against what PyTorch recorded, through the interpreter.
#include <gtest/gtest.h>

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
  FileTensors parameters() override {
    FileTensors result;
    for (const ArenaSlice& slice : graphs_.layout.slices) {
      Tensor& value = result[slice.name] = Tensor(TensorType{DType::f32, slice.shape});
      for (int64_t i = 0; i < slice.size(); ++i) value.set(i, stepper_.at(kParameterArena, slice.offset + i));
    }
    return result;
  }

 private:
  NamedTensors initial(const OptimizerOptions& optimizer, const FileTensors& parameters) const {
    NamedTensors states = initial_states(optimizer);
    Tensor& arena = states[kParameterArena] = Tensor(TensorType{DType::f32, {graphs_.layout.size}});
    for (const ArenaSlice& slice : graphs_.layout.slices)
      for (int64_t i = 0; i < slice.size(); ++i) arena.set(slice.offset + i, parameters.at(slice.name).at(i));
    return states;
  }

  const StepGraphs graphs_;
  Stepper stepper_;
};

std::unique_ptr<TrainingStep> interpreted(const Graph& model, const LossOptions& loss,
                                          const OptimizerOptions& optimizer, const FileTensors& parameters) {
  return std::make_unique<InterpretedStep>(model, loss, optimizer, parameters);
}

TEST(TorchReference, TwentyStepsOfEveryOptimizer) { expect_recorded_trajectories(interpreted); }
TEST(TorchReference, EveryLossScaleTrace) { expect_recorded_loss_scales(interpreted); }
TEST(TorchReference, EveryLoss) { expect_recorded_losses(interpreted); }
TEST(TorchReference, AScaleForEachLoss) { expect_recorded_scales_of_each(interpreted); }
TEST(TorchReference, SeveralWeightedLosses) { expect_recorded_several_losses(interpreted); }
TEST(LossScaleRules, OfTorchOnRandomOverflows) { expect_torch_rule(interpreted, {.runs = 200}); }
TEST(LossScaleRules, OfDeepSpeedOnRandomOverflows) { expect_deepspeed_rule(interpreted, {.runs = 200}); }

}  // namespace
}  // namespace halfstep
