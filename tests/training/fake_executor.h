// An executor without kernels: its steps are a few lines that mix every input into the state, so that two runs end in
// the same state only if they saw the same inputs in the same order.
#pragma once

#include <cmath>
#include <deque>
#include <functional>

#include "base/error.h"
#include "runtime/executor.h"
#include "tests/slots.h"

namespace halfstep {

struct Submission {
  std::string program;
  NamedTensors inputs;
  friend bool operator==(const Submission&, const Submission&) = default;
};

// Two parameters with a gap between them; the first is stored with its axes permuted. Batch 4, samples of 3 elements.
inline CompiledModel fake_model(int64_t accumulation = 1) {
  const std::vector<Buffer> inputs = {{"x", BufferKind::input, {DType::f32, {4, 3}}},
                                      {"y", BufferKind::input, {DType::i64, {4}}},
                                      {kStepLearningRate, BufferKind::input, {DType::f32, {}}},
                                      {kStepIteration, BufferKind::input, {DType::i32, {}}},
                                      {kStepSeed, BufferKind::input, {DType::i64, {}}}};
  const std::vector<Buffer> state = {{kParameterArena, BufferKind::state, {DType::f32, {32}}},
                                     {Name(Role::slot, "parameters.f16"), BufferKind::state, {DType::f16, {32}}},
                                     {kMomentumArena, BufferKind::state, {DType::f32, {32}}},
                                     {"bn.running_mean", BufferKind::state, {DType::f32, {3}}},
                                     {kLossScaleState, BufferKind::state, {DType::f32, {}}},
                                     {kLossScaleTracker, BufferKind::state, {DType::i32, {}}}};
  const auto scalar_output = [](const Name& name) { return Buffer{name, BufferKind::output, {DType::f32, {}}}; };
  Program train{"train", inputs, {}}, accumulate{"accumulate", inputs, {}};
  Program evaluate{"evaluate", {inputs[0], inputs[1]}, {}};
  for (const OwnName& name : {kLoss, kCorrect, kUsedLossScale, kOverflow}) train.buffers.push_back(scalar_output(name));
  for (const OwnName& name : {kLoss, kCorrect}) accumulate.buffers.push_back(scalar_output(name));
  for (const OwnName& name : {kRowLoss, kRowCorrect})
    evaluate.buffers.push_back({name, BufferKind::output, {DType::f32, {4}}});
  for (Program* p : {&train, &accumulate, &evaluate}) p->buffers.insert(p->buffers.end(), state.begin(), state.end());
  CompiledModel model;
  model.programs = {evaluate, accumulate, train};
  model.arenas = {kParameterArena, Name(Role::slot, "parameters.f16"), kMomentumArena};
  model.parameters = {{"conv.weight", {2, 2, 1, 3}, {0, 2, 3, 1}, 0}, {"conv/bias", {2}, {}, 16}};
  model.state[kLossScaleState] = Tensor::scalar(DType::f32, 1024);
  model.state[kParameterArena] = Tensor(TensorType{DType::f32, {32}});
  for (int64_t i = 0; i < 12; ++i) model.state[kParameterArena].set(i, 0.01 * static_cast<double>(i + 1));
  for (int64_t i = 16; i < 18; ++i) model.state[kParameterArena].set(i, -1);
  model.notes.accumulation = accumulation;
  return model;
}

class FakeExecutor final : public Executor {
 public:
  explicit FakeExecutor(CompiledModel model = fake_model()) : model_(std::move(model)) {
    for (const Program& p : model_.programs)
      for (const Buffer& b : p.buffers)
        if (b.kind == BufferKind::state) state_.emplace(b.name, Tensor(b.type));
    for (const auto& [name, value] : model_.state) state_[name] = value;
    state_[Name(Role::slot, "parameters.f16")] = state_[kParameterArena].cast(DType::f16);
  }

  std::vector<Submission> log;
  NamedTensors& state() { return state_; }
  int64_t lag = 2;                                                         // results that Wait::no holds back
  std::function<void(FakeExecutor&)> before_submit;                        // after the submission was added to the log
  std::function<bool(int64_t)> overflows = [](int64_t) { return false; };  // by number of the train step, from 1
  std::optional<double> labels_that_count{};                               // of each batch; absent: all
  double loss_override = 0;  // reported instead of the loss where it is not 0

  const CompiledModel& model() const override { return model_; }

  std::vector<std::span<std::byte>> begin_step(int program) override {
    program_ = &model_.programs[static_cast<size_t>(program)];
    log.push_back({program_->name, {}});
    std::vector<std::span<std::byte>> staging;
    for (const Buffer& b : program_->buffers)
      if (b.kind == BufferKind::input)
        staging.emplace_back(log.back().inputs.emplace(b.name, b.type).first->second.data);
    return staging;
  }

  int64_t submit() override {
    if (before_submit) before_submit(*this);
    const Submission& s = log.back();
    results_.push_back({ticket_, s.program == "evaluate" ? evaluate(s.inputs) : step(s)});
    ++counters_.steps;
    return ticket_++;
  }

  std::optional<StepResult> poll(Wait wait) override {
    if (results_.empty() || (wait == Wait::no && static_cast<int64_t>(results_.size()) <= lag)) return std::nullopt;
    if (wait == Wait::yes) ++counters_.result_waits;
    StepResult result = std::move(results_.front());
    results_.pop_front();
    return result;
  }

  Tensor read_state(const Name& name) override { return state_.at(name); }
  void write_state(const Name& name, const Tensor& value) override {
    require(state_.at(name).type == value.type, "state keeps its type");
    state_[name] = value;
  }
  ExecutorCounters counters() const override { return counters_; }
  MemoryReport memory() const override { return {.state_bytes = 77}; }
  std::vector<StepTime> profile(int, int) override { return {}; }
  std::vector<double> time_steps(int, int) override { return {}; }

 private:
  // Order-sensitive, in [0, 1).
  static double mix(const NamedTensors& inputs) {
    uint64_t hash = 14695981039346656037u;
    for (const auto& [name, tensor] : inputs)
      for (const std::byte b : tensor.data) hash = (hash ^ static_cast<uint64_t>(b)) * 1099511628211u;
    return static_cast<double>(hash >> 40) / 16777216.0;
  }

  NamedTensors step(const Submission& s) {
    const double loss = mix(s.inputs);
    for (int64_t i = 0; i < 3; ++i) accumulated_ += loss * (i + 1);
    NamedTensors outputs{{kLoss, Tensor::scalar(DType::f32, loss_override != 0 ? loss_override : loss)},
                         {kCorrect, Tensor::scalar(DType::f32, std::floor(loss * 5))}};
    if (labels_that_count) outputs[kCounted] = Tensor::scalar(DType::f32, *labels_that_count);
    Tensor& mean = state_["bn.running_mean"];
    for (int64_t i = 0; i < 3; ++i) mean.set(i, 0.9 * mean.at(i) + 0.1 * s.inputs.at("x").at(i));
    if (s.program == "accumulate") return outputs;
    const bool overflow = overflows(++train_steps_);
    outputs[kOverflow] = Tensor::scalar(DType::f32, overflow);
    outputs[kUsedLossScale] = state_[kLossScaleState];
    update(overflow, s.inputs.at(kStepLearningRate).at(0));
    accumulated_ = 0;
    return outputs;
  }

  void update(bool overflow, double rate) {
    Tensor &scale = state_[kLossScaleState], &tracker = state_[kLossScaleTracker];
    tracker.set(0, overflow ? 0 : tracker.at(0) + 1);
    if (overflow) {
      scale.set(0, std::max(1.0, scale.at(0) / 2));
      return;
    }
    Tensor &parameters = state_[kParameterArena], &momentum = state_[kMomentumArena];
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 12}, {16, 18}})
      for (int64_t i = begin; i < end; ++i) {
        momentum.set(i, 0.9 * momentum.at(i) + accumulated_ * static_cast<double>(i + 1));
        parameters.set(i, parameters.at(i) - rate * momentum.at(i));
      }
    state_[Name(Role::slot, "parameters.f16")] = parameters.cast(DType::f16);
  }

  // Row loss: the first element of the sample; correct where the label is even.
  static NamedTensors evaluate(const NamedTensors& inputs) {
    NamedTensors outputs;
    Tensor loss(TensorType{DType::f32, {4}}), correct(TensorType{DType::f32, {4}});
    for (int64_t row = 0; row < 4; ++row) {
      loss.set(row, inputs.at("x").at(row * 3));
      correct.set(row, static_cast<int64_t>(inputs.at("y").at(row)) % 2 == 0);
    }
    outputs[kRowLoss] = loss;
    outputs[kRowCorrect] = correct;
    return outputs;
  }

  CompiledModel model_;
  NamedTensors state_;
  const Program* program_ = nullptr;
  std::deque<StepResult> results_;
  ExecutorCounters counters_;
  int64_t ticket_ = 0;
  int64_t train_steps_ = 0;
  double accumulated_ = 0;
};

}  // namespace halfstep
