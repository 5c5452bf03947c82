// What a step handle of the API holds: an executor, and the host's part of a run.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "api/tensors.h"
#include "runtime/executor.h"
#include "training/checkpoint.h"
#include "training/step_sums.h"

namespace halfstep {

class LoadedStep {
 public:
  using Options = std::vector<std::pair<std::string, std::string>>;  // of load_step

  LoadedStep(const std::string& directory, const Options& options);
  LoadedStep(const LoadedStep&) = delete;  // parameters() points into it
  LoadedStep& operator=(const LoadedStep&) = delete;

  const ProgramValues& values(halfstep_program program, halfstep_direction direction) const;
  Executor& executor() { return *executor_; }
  const std::string& directory() const { return directory_; }

  void train(std::span<const halfstep_input> inputs);
  double loss();
  double loss_scale();
  bool skipped();
  int64_t steps() const { return state_.step; }

  void set_learning_rate(double rate);
  double learning_rate() const { return learning_rate_; }

  // HALFSTEP_EVALUATE or HALFSTEP_PREDICT.
  void run(halfstep_program program, std::span<const halfstep_input> inputs, std::span<const halfstep_output> outputs);

  // The parts of the flat buffer of parameters.
  const std::vector<halfstep_parameter>& parameters() const { return parameters_; }
  size_t parameter_elements() const;
  void read_parameters(std::span<float> values);
  void write_parameters(std::span<const float> values);

  void save(const std::string& directory, int keep);
  void load(const std::string& path);

 private:
  struct InFlight {
    int64_t ticket = 0;
    bool ends_step = false;
  };

  void list_values();
  void list_parameters();
  // The program's host values and the caller's data; starts it and returns its ticket.
  int64_t submit(const std::string& program, const ProgramValues& values, std::span<const std::byte* const> data,
                 int64_t iteration);
  // Takes the results of batches of train; with Wait::yes all that are outstanding.
  void collect(Wait wait);
  void take(const StepResult& result);
  NamedTensors wait_for(int64_t ticket);
  const std::string& label_input() const;

  std::string directory_;
  std::unique_ptr<Executor> executor_;
  std::array<std::array<ProgramValues, 2>, 3> values_;  // by program and direction
  ValueRanges ranges_;
  int64_t accumulation_ = 1, batch_ = 1;
  double learning_rate_ = 0;
  TrainState state_;     // step, iteration and seed; the order of the samples is the caller's
  int64_t batches_ = 0;  // of the present optimizer step
  std::deque<InFlight> in_flight_;
  StepSums sums_;  // of the last or present optimizer step
  bool sums_ended_ = true;
  std::optional<double> loss_;
  struct Finished {
    double loss_scale = 1;
    bool skipped = false;
  };
  std::optional<Finished> finished_;  // the last optimizer step
  std::vector<WeightTensor> weights_;
  std::vector<halfstep_parameter> parameters_;
};

}  // namespace halfstep

struct halfstep_step {
  halfstep::LoadedStep loaded;
};
