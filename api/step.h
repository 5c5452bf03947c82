// What a step handle of the API holds: an executor, and the host's part of a run.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "api/tensors.h"
#include "runtime/executor.h"
#include "training/checkpoint.h"
#include "training/grad_scaler.h"
#include "training/row_sums.h"
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

  DevicePlace place() const { return {*executor_, device_index_}; }

  // `stream` of the inputs that lie on the device.
  void train(std::span<const halfstep_tensor> inputs, void* stream);
  double loss();
  // Several: their notes, and their values as `loss`.
  const std::vector<LossNote>& losses() const { return executor_->model().notes.losses; }
  std::vector<double> read_losses();
  double loss_scale();
  bool skipped();
  int64_t steps() const { return state_.step; }
  int64_t epochs() const { return state_.epoch; }
  struct Finished {
    int64_t number = 0;
    double loss = 0, loss_scale = 1;
    bool skipped = false;
  };
  // The oldest optimizer step not told yet.
  std::optional<Finished> next_finished();

  GradScalerState grad_scaler();
  // The losses that have a scale of their own, in the order of losses(), or "", of all.
  std::vector<const char*> grad_scaler_losses() const;
  GradScalers grad_scalers();
  void set_grad_scalers(const GradScalers& states);

  void set_learning_rate(double rate);
  double learning_rate() const { return learning_rate_; }

  // HALFSTEP_EVALUATE or HALFSTEP_PREDICT; `bind` gives the outputs their values.
  template <typename Bind>
  void run(halfstep_program program, std::span<const halfstep_tensor> inputs, void* stream, const Bind& bind) {
    const ProgramValues& wanted = outputs_of(program);
    run(program, inputs, stream, std::span<const BoundOutput>(bind(wanted)));
  }

  // Measures over batches of program "evaluate", as recipes name them.
  void begin_measures(const std::string& names);
  void measure(std::span<const halfstep_tensor> inputs, void* stream, size_t rows);
  // What they say so far, the loss first; stays until the next of these calls.
  const std::vector<MeasureValue>& measured();

  // The parts of the flat buffer of parameters.
  const std::vector<halfstep_parameter>& parameters() const { return parameters_; }
  size_t parameter_elements() const;
  void read_parameters(std::span<float> values);
  void write_parameters(std::span<const float> values);

  void set_epochs(int64_t epochs, int64_t samples);
  void save(const std::string& directory, int keep);
  void load(const std::string& path);

 private:
  struct InFlight {
    int64_t ticket = 0;
    bool ends_step = false;
  };

  void list_values();
  void list_parameters();
  // The caller's data of a program's values.
  struct Batch {
    const ProgramValues& values;
    std::vector<BoundInput> inputs;
    std::vector<Tensor> read_back;  // from the device, to be checked
    void* stream = nullptr;
  };
  // `read`: inputs that the host reads, wherever they lie, beside those that are checked.
  Batch bind(const ProgramValues& values, std::span<const halfstep_tensor> inputs, void* stream,
             const std::vector<std::string>& read = {});
  // The program's host values and the caller's data; starts it and returns its ticket.
  using Staging = std::span<const std::span<std::byte>>;
  int64_t submit(const std::string& program, const Batch& batch, int64_t iteration,
                 const std::function<void(Staging)>& staged = {});
  // Throws ArgumentError where there are none.
  const ProgramValues& outputs_of(halfstep_program program) const;
  void run(halfstep_program program, std::span<const halfstep_tensor> inputs, void* stream,
           std::span<const BoundOutput> outputs);
  // Takes the results of batches of train; with Wait::yes all that are outstanding.
  void collect(Wait wait);
  void take(const StepResult& result);
  NamedTensors wait_for(int64_t ticket);

  std::string directory_;
  std::unique_ptr<Executor> executor_;
  int device_index_ = 0;
  std::array<std::array<ProgramValues, 2>, 3> values_;  // by program and direction
  ValueRanges ranges_;
  int64_t accumulation_ = 1, batch_ = 1;
  double learning_rate_ = 0;
  TrainState state_;     // step, epochs, iteration and seed; the order of the samples is the caller's
  int64_t batches_ = 0;  // of the present optimizer step
  std::deque<InFlight> in_flight_;
  StepSums sums_;  // of the last or present optimizer step
  bool sums_ended_ = true;
  std::optional<double> loss_;
  std::optional<Finished> finished_;  // the last optimizer step
  int64_t finished_steps_ = 0;
  std::deque<Finished> untold_;
  std::optional<RowSums> measures_;
  std::vector<MeasureValue> measured_;
  std::vector<WeightTensor> weights_;
  std::vector<halfstep_parameter> parameters_;
};

}  // namespace halfstep

struct halfstep_step {
  halfstep::LoadedStep loaded;
};
