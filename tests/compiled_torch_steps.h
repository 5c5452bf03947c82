// The recorded optimizers and loss scales (tests/torch_steps.h) through compiled programs.
#pragma once

#include "tests/compiled_graph.h"
#include "tests/torch_steps.h"
#include "training/checkpoint_state.h"

namespace halfstep {

class CompiledStep : public TrainingStep {
 public:
  CompiledStep(std::unique_ptr<Executor> executor, const FileTensors& parameters) : executor_(std::move(executor)) {
    write_weights(*executor_, parameters, "recorded parameters");
  }

  std::map<Name, double> run(const NamedTensors& inputs) override {
    std::map<Name, double> measures;
    for (const auto& [name, value] : run_program(*executor_, "train", inputs)) measures.emplace(name, value.at(0));
    return measures;
  }
  double scalar_state(const Name& name) override { return executor_->read_state(name).at(0); }
  FileTensors parameters() override { return read_model_state(*executor_).weights; }
  FileTensors average() override {
    FileTensors result;
    for (auto& [name, value] : read_model_state(*executor_).slots)
      if (name.starts_with("ema/")) result.emplace(name.substr(4), value);
    return result;
  }

 private:
  std::unique_ptr<Executor> executor_;
};

inline MakeTrainingStep compiled_for(DeviceKind device) {
  return [device](const Graph& model, const LossOptions& loss, const OptimizerOptions& optimizer,
                  const FileTensors& parameters) {
    TrainingPipelineOptions options;
    options.loss = loss;
    options.autocast.low = std::nullopt;
    options.optimizer = optimizer;
    return std::make_unique<CompiledStep>(compile_step(model, options, device), parameters);
  };
}

}  // namespace halfstep
