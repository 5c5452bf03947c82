// Runs a compiled model on one GPU. At load every step is prepared and run once, then each program is captured over
// lanes into one CUDA graph per input slot: inputs and results of a slot have fixed addresses. A submitted step is one
// copy to the device on the transfer stream, one graph launch on the compute stream, which also leaves the results in
// page-locked memory, and an event.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>

#include "base/error.h"
#include "program/initial_state.h"
#include "program/program_check.h"
#include "runtime/cuda/buffers.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/lanes.h"
#include "runtime/cuda/nvtx.h"
#include "runtime/cuda/step_calls.h"
#include "runtime/cuda/versions.h"
#include "runtime/executor.h"

namespace halfstep {
namespace {

class CudaExecutor final : public Executor {
 public:
  CudaExecutor(CompiledModel model, const ExecutorOptions& options);
  ~CudaExecutor() override;

  const CompiledModel& model() const override { return model_; }
  std::vector<std::span<std::byte>> begin_step(int program) override;
  int64_t submit() override;
  bool on_device(const void* data) const override;
  void take_from_device(size_t input, const void* data, void* stream) override;
  void copy_from_device(std::span<std::byte> to, const void* from, void* stream) override;
  void copy_to_device(void* to, std::span<const std::byte> from, void* stream) override;
  std::optional<StepResult> poll(Wait wait) override;
  Tensor read_state(const Name& name) override;
  void write_state(const Name& name, const Tensor& value) override;
  ExecutorCounters counters() const override { return counters_; }
  MemoryReport memory() const override;
  LoadTimes load_times() const override { return load_times_; }
  std::vector<std::string> remarks() const override;
  std::vector<StepTime> profile(int program, int repeats) override;
  std::vector<double> time_steps(int program, int repeats) override;

 private:
  // An input that the caller has on the device.
  struct DeviceInput {
    size_t input = 0;
    const void* data = nullptr;
    cudaStream_t stream = nullptr;
  };
  struct Slot {
    PinnedMemory staging;
    CudaEvent ready{EventKind::ordering}, copied{EventKind::ordering}, done{EventKind::ordering};
    std::vector<DeviceInput> from_device;
    std::vector<CudaGraph> graphs;  // by program
    int program = 0;
    int64_t ticket = 0;
  };

  const Program& program_at(int program) const;
  void run_once();
  void initialise_state();
  void capture();

  int acquire_slot();
  void copy_inputs(int slot);
  void stage_inputs(int program, int slot);
  void collect_oldest();
  void synchronize();
  NamedTensors save_state() const;
  void restore_state(const NamedTensors& state);

  CompiledModel model_;
  CudaDevice device_;
  CUctx_st* context_ = nullptr;
  CudaStream transfer_;
  DeviceLane compute_;
  DeviceBuffers buffers_;
  ChoiceStore choices_;
  LoadTimes load_times_;
  StepCalls calls_;
  Lanes lanes_;

  std::deque<Slot> slots_;
  int next_slot_ = 0;
  nvtx::Span feeding_;                // since begin_step
  std::optional<int> begun_;          // slot between begin_step and submit
  std::deque<int> in_flight_;         // slots submitted, oldest first
  std::deque<StepResult> collected_;  // results of slots that were needed again before they were polled
  int64_t last_ticket_ = 0;
  ExecutorCounters counters_;
  int64_t measured_bytes_ = 0;
};

CudaExecutor::CudaExecutor(CompiledModel model, const ExecutorOptions& options)
    : model_((require(model.device == DeviceKind::cuda, "a model for another device"), check(model), std::move(model))),
      device_(CudaDevice::open(options.device_index)),
      context_(CurrentContext::get()),
      buffers_(model_, device_),
      choices_(options.keep_in, choice_key(device_, options)),
      calls_(model_, device_, buffers_, options, compute_, choices_, load_times_),
      lanes_(compute_, calls_.workspace_bytes()) {
  choices_.save();
  const Stopwatch watch;
  run_once();
  initialise_state();
  capture();
  load_times_.graphs = watch.milliseconds();
  measured_bytes_ = std::max<int64_t>(0, device_.free_bytes - free_device_bytes());
}

CudaExecutor::~CudaExecutor() {
  const CurrentContext current(context_);
  cudaDeviceSynchronize();  // an error was reported by the call that met it
}

// Kernels are loaded at their first launch, which must not fall into a capture, and a launch that fails is named here.
void CudaExecutor::run_once() {
  for (int p = 0; p < static_cast<int>(model_.programs.size()); ++p) {
    for (size_t i = 0; i < program_at(p).steps.size(); ++i) {
      at_step(program_at(p).steps[i], [&] {
        calls_.enqueue(p, 0, i, compute_);
        compute_.stream.synchronize();
      });
    }
  }
}

void CudaExecutor::initialise_state() {
  for (const auto& [name, state] : buffers_.states()) {
    if (state.memory.size() == 0) continue;
    int64_t written = 0;
    read_initial_state(model_, name, state.type.dtype, [&, &memory = state.memory](Piece piece) {
      check(cudaMemcpyAsync(memory.data() + written, piece.data(), piece.size(), cudaMemcpyHostToDevice,
                            compute_.stream.get()),
            "cudaMemcpyAsync");
      compute_.stream.synchronize();  // before the piece ends
      written += static_cast<int64_t>(piece.size());
    });
    if (written == 0)
      check(cudaMemsetAsync(state.memory.data(), 0, static_cast<size_t>(state.memory.size()), compute_.stream.get()),
            "cudaMemsetAsync");
  }
  compute_.stream.synchronize();
}

void CudaExecutor::capture() {
  std::vector<LanePlan> plans;
  for (const Program& program : model_.programs) plans.push_back(lanes_.plan(program));
  for (int s = 0; s < buffers_.slots(); ++s) {
    Slot& slot = slots_.emplace_back();
    slot.staging = PinnedMemory(buffers_.input_bytes());
    for (int p = 0; p < static_cast<int>(model_.programs.size()); ++p) {
      const int64_t bytes = buffers_.output_layout(p).bytes;
      const LanePlan& plan = plans[static_cast<size_t>(p)];
      slot.graphs.emplace_back(compute_.stream, [&] {
        lanes_.enqueue(
            program_at(p), plan,
            [&](size_t i, const DeviceLane& lane) {
              at_step(program_at(p).steps[i], [&] { calls_.enqueue(p, s, i, lane); });
            },
            [&](const CudaStream& stream) {
              if (bytes == 0 || buffers_.writes_results(p)) return;
              check(cudaMemcpyAsync(buffers_.results(s), buffers_.outputs(), static_cast<size_t>(bytes),
                                    cudaMemcpyDeviceToHost, stream.get()),
                    "cudaMemcpyAsync");
            });
      });
    }
  }
  compute_.stream.synchronize();
}

const Program& CudaExecutor::program_at(int program) const {
  require(program >= 0 && static_cast<size_t>(program) < model_.programs.size(), "no such program");
  return model_.programs[static_cast<size_t>(program)];
}

// Slots are used in turn, so a slot in flight is the oldest one.
int CudaExecutor::acquire_slot() {
  if (begun_) return *begun_;
  if (!in_flight_.empty() && in_flight_.front() == next_slot_) {
    const CudaEvent& done = slots_[static_cast<size_t>(next_slot_)].done;
    if (!done.done()) {
      ++counters_.slot_waits;
      done.synchronize();
    }
    collect_oldest();
  }
  begun_ = next_slot_;
  next_slot_ = (next_slot_ + 1) % buffers_.slots();
  return *begun_;
}

void CudaExecutor::collect_oldest() {
  const Slot& slot = slots_[static_cast<size_t>(in_flight_.front())];
  StepResult result;
  result.ticket = slot.ticket;
  for (const BlockLayout::Entry& entry : buffers_.output_layout(slot.program).entries) {
    Tensor value(entry.type);
    std::memcpy(value.data.data(), buffers_.results(in_flight_.front()) + entry.offset, value.data.size());
    result.outputs.emplace(program_at(slot.program).buffers[static_cast<size_t>(entry.buffer)].name, std::move(value));
  }
  in_flight_.pop_front();
  collected_.push_back(std::move(result));
}

std::vector<std::span<std::byte>> CudaExecutor::begin_step(int program) {
  const CurrentContext current(context_);
  program_at(program);
  Slot& slot = slots_[static_cast<size_t>(acquire_slot())];
  slot.program = program;
  feeding_.begin("feed " + program_at(program).name);
  slot.from_device.clear();
  std::vector<std::span<std::byte>> inputs;
  for (const BlockLayout::Entry& entry : buffers_.input_layout(program).entries) {
    inputs.emplace_back(slot.staging.data() + entry.offset, static_cast<size_t>(entry.type.byte_count()));
  }
  return inputs;
}

bool CudaExecutor::on_device(const void* data) const {
  const CurrentContext current(context_);
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, data), "cudaPointerGetAttributes");
  return (attributes.type == cudaMemoryTypeDevice && attributes.device == device_.index) ||
         attributes.type == cudaMemoryTypeManaged;
}

void CudaExecutor::take_from_device(size_t input, const void* data, void* stream) {
  require(begun_.has_value(), "take_from_device without begin_step");
  slots_[static_cast<size_t>(*begun_)].from_device.push_back({input, data, static_cast<cudaStream_t>(stream)});
}

void CudaExecutor::copy_from_device(std::span<std::byte> to, const void* from, void* stream) {
  const CurrentContext current(context_);
  const auto on = static_cast<cudaStream_t>(stream);
  check(cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDeviceToHost, on), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(on), "cudaStreamSynchronize");
}

void CudaExecutor::copy_to_device(void* to, std::span<const std::byte> from, void* stream) {
  const CurrentContext current(context_);
  const auto on = static_cast<cudaStream_t>(stream);
  check(cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, on), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(on), "cudaStreamSynchronize");
}

// One copy of all that is staged; where some lies on the device already, one of each input.
void CudaExecutor::copy_inputs(int index) {
  Slot& slot = slots_[static_cast<size_t>(index)];
  const BlockLayout& layout = buffers_.input_layout(slot.program);
  if (layout.bytes == 0) return;
  const auto copy = [&](int64_t offset, const void* from, int64_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return;
    check(cudaMemcpyAsync(buffers_.inputs(index) + offset, from, static_cast<size_t>(bytes), kind, transfer_.get()),
          "cudaMemcpyAsync");
  };
  if (slot.from_device.empty()) copy(0, slot.staging.data(), layout.bytes, cudaMemcpyHostToDevice);
  for (size_t i = 0; i < layout.entries.size() && !slot.from_device.empty(); ++i) {
    const BlockLayout::Entry& entry = layout.entries[i];
    const auto given = std::ranges::find(slot.from_device, i, &DeviceInput::input);
    if (given == slot.from_device.end()) {
      copy(entry.offset, slot.staging.data() + entry.offset, entry.type.byte_count(), cudaMemcpyHostToDevice);
      continue;
    }
    check(cudaEventRecord(slot.ready.get(), given->stream), "cudaEventRecord");
    check(cudaStreamWaitEvent(transfer_.get(), slot.ready.get(), 0), "cudaStreamWaitEvent");
    copy(entry.offset, given->data, entry.type.byte_count(), cudaMemcpyDeviceToDevice);
  }
  slot.copied.record(transfer_);
  check(cudaStreamWaitEvent(compute_.stream.get(), slot.copied.get(), 0), "cudaStreamWaitEvent");
  // Their owner may write or free them next.
  for (const DeviceInput& input : slot.from_device)
    check(cudaStreamWaitEvent(input.stream, slot.copied.get(), 0), "cudaStreamWaitEvent");
  slot.from_device.clear();
}

int64_t CudaExecutor::submit() {
  const CurrentContext current(context_);
  require(begun_.has_value(), "submit without begin_step");
  const int index = *begun_;
  Slot& slot = slots_[static_cast<size_t>(index)];
  feeding_.end();
  const nvtx::Range range(program_at(slot.program).name);
  copy_inputs(index);
  slot.graphs[static_cast<size_t>(slot.program)].launch(compute_.stream);
  slot.done.record(compute_.stream);
  ++counters_.graph_launches;
  ++counters_.steps;
  slot.ticket = ++last_ticket_;
  in_flight_.push_back(index);
  begun_.reset();
  return slot.ticket;
}

std::optional<StepResult> CudaExecutor::poll(Wait wait) {
  const CurrentContext current(context_);
  if (collected_.empty()) {
    if (in_flight_.empty()) return std::nullopt;
    const CudaEvent& done = slots_[static_cast<size_t>(in_flight_.front())].done;
    if (!done.done()) {
      if (wait == Wait::no) return std::nullopt;
      ++counters_.result_waits;
      const nvtx::Range range("wait for results");
      done.synchronize();
    }
    collect_oldest();
  }
  StepResult result = std::move(collected_.front());
  collected_.pop_front();
  return result;
}

void CudaExecutor::synchronize() {
  transfer_.synchronize();
  compute_.stream.synchronize();
}

Tensor CudaExecutor::read_state(const Name& name) {
  const CurrentContext current(context_);
  const DeviceBuffers::State& state = buffers_.state(name);
  synchronize();
  Tensor value(state.type);
  check(cudaMemcpy(value.data.data(), state.memory.data(), value.data.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return value;
}

void CudaExecutor::write_state(const Name& name, const Tensor& value) {
  const CurrentContext current(context_);
  const DeviceBuffers::State& state = buffers_.state(name);
  if (value.type != state.type) {
    throw Error(fmt::format("state '{}': expected {}, found {}", to_string(name), to_string(state.type),
                            to_string(value.type)));
  }
  synchronize();
  check(cudaMemcpyAsync(state.memory.data(), value.data.data(), value.data.size(), cudaMemcpyHostToDevice,
                        compute_.stream.get()),
        "cudaMemcpyAsync");
  compute_.stream.synchronize();
}

std::vector<std::string> CudaExecutor::remarks() const {
  std::vector<std::string> all = calls_.remarks();
  all.insert(all.end(), choices_.remarks().begin(), choices_.remarks().end());
  return all;
}

MemoryReport CudaExecutor::memory() const {
  return {buffers_.state_bytes(), buffers_.scratch_bytes(), compute_.workspace.size() + lanes_.workspace_bytes(),
          measured_bytes_};
}

NamedTensors CudaExecutor::save_state() const {
  NamedTensors saved;
  for (const auto& [name, state] : buffers_.states()) {
    Tensor& value = saved.emplace(name, Tensor(state.type)).first->second;
    check(cudaMemcpy(value.data.data(), state.memory.data(), value.data.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
  }
  return saved;
}

void CudaExecutor::restore_state(const NamedTensors& saved) {
  for (const auto& [name, value] : saved) write_state(name, value);
}

void CudaExecutor::stage_inputs(int program, int slot) {
  if (const int64_t bytes = buffers_.input_layout(program).bytes; bytes > 0)
    check(cudaMemcpyAsync(buffers_.inputs(slot), slots_[static_cast<size_t>(slot)].staging.data(),
                          static_cast<size_t>(bytes), cudaMemcpyHostToDevice, compute_.stream.get()),
          "cudaMemcpyAsync");
}

std::vector<StepTime> CudaExecutor::profile(int program, int repeats) {
  const CurrentContext current(context_);
  require(repeats > 0, "profile: repeats must be positive");
  synchronize();
  const NamedTensors saved = save_state();
  const int slot = acquire_slot();
  stage_inputs(program, slot);
  std::vector<StepTime> times;
  const std::vector<Step>& steps = program_at(program).steps;
  for (size_t i = 0; i < steps.size(); ++i) {
    at_step(steps[i], [&] {
      const CallCost work = cost(steps[i]);
      const double time = time_call(compute_.stream, [&] { calls_.enqueue(program, slot, i, compute_); }, repeats);
      times.push_back({steps[i].origin, describe(steps[i]), time, work.bytes, work.flops});
    });
  }
  restore_state(saved);
  return times;
}

std::vector<double> CudaExecutor::time_steps(int program, int repeats) {
  const CurrentContext current(context_);
  require(repeats > 0, "time_steps: repeats must be positive");
  program_at(program);
  synchronize();
  const NamedTensors saved = save_state();
  const int index = acquire_slot();  // its graph writes into its result area, which must hold no result any more
  Slot& slot = slots_[static_cast<size_t>(index)];
  stage_inputs(program, index);
  const CudaGraph& graph = slot.graphs[static_cast<size_t>(program)];
  graph.launch(compute_.stream);  // the first launch is slower
  std::vector<CudaEvent> events;
  for (int i = 0; i <= repeats; ++i) events.emplace_back(EventKind::timing);
  events[0].record(compute_.stream);
  for (int i = 0; i < repeats; ++i) {
    graph.launch(compute_.stream);
    events[static_cast<size_t>(i) + 1].record(compute_.stream);
  }
  compute_.stream.synchronize();
  std::vector<double> milliseconds;
  for (size_t i = 1; i < events.size(); ++i) {
    milliseconds.push_back(events[i].microseconds_since(events[i - 1]) / 1e3);
  }
  restore_state(saved);
  return milliseconds;
}

}  // namespace

extern "C" Executor* halfstep_make_cuda_executor(CompiledModel& model, const ExecutorOptions& options) {
  CUctx_st* const before = CurrentContext::get();
  auto executor = std::make_unique<CudaExecutor>(std::move(model), options);
  if (before != nullptr) CurrentContext::set(before);  // a thread that had none keeps ours
  return executor.release();
}

}  // namespace halfstep
