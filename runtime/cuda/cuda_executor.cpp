// Runs a compiled model on one GPU. At load every step is prepared and run once, then each program is captured into one
// CUDA graph per input slot: inputs and results of a slot have fixed addresses. A submitted step is one copy to the
// device on the transfer stream, one graph launch on the compute stream, which ends with the copy of the results into
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
#include "runtime/cuda/attention.h"
#include "runtime/cuda/buffers.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/convolution.h"
#include "runtime/cuda/gemm.h"
#include "runtime/cuda/module.h"
#include "runtime/cuda/nvtx.h"
#include "runtime/cuda/recurrent.h"
#include "runtime/cuda/rows.h"
#include "runtime/cuda/versions.h"
#include "runtime/executor.h"

namespace halfstep {
namespace {

constexpr int64_t kEngineWorkspaceLimit = int64_t{1} << 30;

// Errors inside of a step say which one, and so do profilers.
template <typename Body>
void at_step(const Step& step, Body body) {
  const nvtx::Range range(step.origin.empty() ? describe(step) : step.origin);
  try {
    body();
  } catch (const Error& error) {
    throw Error(fmt::format("{} of '{}': {}", describe(step), step.origin, error.what()));
  }
}

class Stopwatch {
 public:
  double milliseconds() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

int64_t free_device_bytes() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<int64_t>(free);
}

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
    PinnedMemory staging, results;
    CudaEvent ready{EventKind::ordering}, copied{EventKind::ordering}, done{EventKind::ordering};
    std::vector<DeviceInput> from_device;
    std::vector<CudaGraph> graphs;  // by program
    int program = 0;
    int64_t ticket = 0;
  };

  const Program& program_at(int program) const;
  void find_kernels();
  void prepare_libraries(const ExecutorOptions& options);
  void run_once();
  void initialise_state();
  void capture();

  void enqueue(int program, int slot, size_t step, const CudaStream& kernels);
  void enqueue_program(int program, int slot);
  GemmAddresses addresses(int program, int slot, const Gemm& gemm) const;
  CudnnOperands addresses(int program, int slot, const Convolution& convolution) const;
  AttentionAddresses addresses(int program, int slot, const Attention& attention) const;

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
  // Library calls run on `compute_`; in a captured step kernels and copies run beside them on `kernels_lane_`.
  CudaStream compute_, kernels_lane_, transfer_;
  DeviceBuffers buffers_;
  ChoiceStore choices_;
  std::vector<std::string> remarks_;  // of the kernels
  std::unique_ptr<CudaModule> module_;
  std::vector<std::vector<CUfunction>> kernels_;  // by program and step; null where the step is no kernel
  Workspace workspace_;
  RowsKernels rows_;
  std::optional<CublasGemms> gemms_;
  std::optional<CudnnConvolutions> convolutions_;
  std::optional<CudnnAttentions> attentions_;
  std::optional<CudnnRecurrents> recurrents_;

  std::deque<Slot> slots_;
  int next_slot_ = 0;
  nvtx::Span feeding_;                // since begin_step
  std::optional<int> begun_;          // slot between begin_step and submit
  std::deque<int> in_flight_;         // slots submitted, oldest first
  std::deque<StepResult> collected_;  // results of slots that were needed again before they were polled
  int64_t last_ticket_ = 0;
  ExecutorCounters counters_;
  LoadTimes load_times_;
  int64_t measured_bytes_ = 0;
};

CudaExecutor::CudaExecutor(CompiledModel model, const ExecutorOptions& options)
    : model_((check(model), std::move(model))),
      device_(CudaDevice::open(options.device_index)),
      context_(CurrentContext::get()),
      buffers_(model_, device_),
      choices_(options.keep_in, choice_key(device_, options)),
      rows_(device_) {
  require(model_.device == DeviceKind::cuda, "a model for another device");
  find_kernels();
  prepare_libraries(options);
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

void CudaExecutor::find_kernels() {
  const Stopwatch watch;
  if (!model_.kernels.empty()) {
    check_architecture(device_, model_.architecture);
    module_ = load_kernels(model_, device_, choices_, remarks_);
  }
  for (const Program& program : model_.programs) {
    std::vector<CUfunction>& functions = kernels_.emplace_back(program.steps.size(), nullptr);
    for (size_t i = 0; i < program.steps.size(); ++i) {
      const auto* launch = std::get_if<KernelLaunch>(&program.steps[i].call);
      if (!launch) continue;
      at_step(program.steps[i], [&] {
        if (!module_) throw Error("the model has no kernels");
        functions[i] = module_->find(launch->kernel);
      });
    }
  }
  load_times_.kernels = watch.milliseconds();
}

// Algorithms are timed on the programs' own memory, which holds nothing yet.
void CudaExecutor::prepare_libraries(const ExecutorOptions& options) {
  const Stopwatch watch;
  const ContractionOptions contraction{options.allow_tf32, options.autotune};
  std::vector<ConvolutionCall> convolutions;
  for (int p = 0; p < static_cast<int>(model_.programs.size()); ++p) {
    for (const Step& step : program_at(p).steps) {
      if (const auto* gemm = std::get_if<Gemm>(&step.call)) {
        if (!gemms_) gemms_.emplace(contraction, compute_, workspace_, rows_, choices_);
        at_step(step, [&] { gemms_->prepare(*gemm, addresses(p, 0, *gemm)); });
      } else if (const auto* convolution = std::get_if<Convolution>(&step.call)) {
        convolutions.push_back({convolution, addresses(p, 0, *convolution), step.origin});
      } else if (const auto* attention = std::get_if<Attention>(&step.call)) {
        if (!attentions_) attentions_.emplace(compute_, workspace_, choices_);
        at_step(step, [&] { attentions_->prepare(*attention, addresses(p, 0, *attention)); });
      } else if (const auto* recurrent = std::get_if<Recurrent>(&step.call)) {
        if (!recurrents_) recurrents_.emplace(contraction, compute_, workspace_);
        at_step(step, [&] { recurrents_->prepare(*recurrent); });
      }
    }
  }
  if (!convolutions.empty()) {
    const int64_t limit = std::min(kEngineWorkspaceLimit, free_device_bytes() / 4);
    convolutions_.emplace(contraction, compute_, workspace_, rows_, choices_, limit);
    convolutions_->prepare(convolutions);
  }
  workspace_.resize(std::max(
      {int64_t{0}, gemms_ ? gemms_->workspace_bytes() : 0, convolutions_ ? convolutions_->workspace_bytes() : 0,
       attentions_ ? attentions_->workspace_bytes() : 0, recurrents_ ? recurrents_->workspace_bytes() : 0}));
  load_times_.libraries = watch.milliseconds();
}

// Kernels are loaded at their first launch, which must not fall into a capture, and a launch that fails is named here.
void CudaExecutor::run_once() {
  for (int p = 0; p < static_cast<int>(model_.programs.size()); ++p) {
    for (size_t i = 0; i < program_at(p).steps.size(); ++i) {
      at_step(program_at(p).steps[i], [&] {
        enqueue(p, 0, i, compute_);
        compute_.synchronize();
      });
    }
  }
}

void CudaExecutor::initialise_state() {
  for (const auto& [name, state] : buffers_.states()) {
    if (state.memory.size() == 0) continue;
    int64_t written = 0;
    read_initial_state(model_, name, state.type.dtype, [&, &memory = state.memory](Piece piece) {
      check(
          cudaMemcpyAsync(memory.data() + written, piece.data(), piece.size(), cudaMemcpyHostToDevice, compute_.get()),
          "cudaMemcpyAsync");
      compute_.synchronize();  // before the piece ends
      written += static_cast<int64_t>(piece.size());
    });
    if (written == 0)
      check(cudaMemsetAsync(state.memory.data(), 0, static_cast<size_t>(state.memory.size()), compute_.get()),
            "cudaMemsetAsync");
  }
  compute_.synchronize();
}

void CudaExecutor::capture() {
  for (int s = 0; s < buffers_.slots(); ++s) {
    Slot& slot = slots_.emplace_back();
    slot.staging = PinnedMemory(buffers_.input_bytes());
    slot.results = PinnedMemory(buffers_.output_bytes());
    for (int p = 0; p < static_cast<int>(model_.programs.size()); ++p) {
      slot.graphs.emplace_back(compute_, [&] {
        enqueue_program(p, s);
        const int64_t bytes = buffers_.output_layout(p).bytes;
        if (bytes == 0) return;
        check(cudaMemcpyAsync(slot.results.data(), buffers_.outputs(), static_cast<size_t>(bytes),
                              cudaMemcpyDeviceToHost, compute_.get()),
              "cudaMemcpyAsync");
      });
    }
  }
  compute_.synchronize();
}

const Program& CudaExecutor::program_at(int program) const {
  require(program >= 0 && static_cast<size_t>(program) < model_.programs.size(), "no such program");
  return model_.programs[static_cast<size_t>(program)];
}

GemmAddresses CudaExecutor::addresses(int program, int slot, const Gemm& gemm) const {
  const auto at = [&](const std::optional<Ref>& ref) {
    return ref ? static_cast<void*>(buffers_.address(program, slot, *ref)) : nullptr;
  };
  return {at(gemm.a), at(gemm.b), at(gemm.c), at(gemm.bias), at(gemm.addend)};
}

CudnnOperands CudaExecutor::addresses(int program, int slot, const Convolution& convolution) const {
  return {buffers_.address(program, slot, convolution.x), buffers_.address(program, slot, convolution.w),
          buffers_.address(program, slot, convolution.y),
          convolution.bias ? buffers_.address(program, slot, *convolution.bias) : nullptr};
}

AttentionAddresses CudaExecutor::addresses(int program, int slot, const Attention& a) const {
  const auto at = [&](const std::optional<Ref>& ref) {
    return ref ? static_cast<void*>(buffers_.address(program, slot, *ref)) : nullptr;
  };
  return {at(a.q), at(a.k), at(a.v), at(a.y), at(a.stats), at(a.dy), at(a.dq), at(a.dk), at(a.dv)};
}

void CudaExecutor::enqueue(int program, int slot, size_t index, const CudaStream& kernels) {
  const Step& step = program_at(program).steps[index];
  if (const auto* launch = std::get_if<KernelLaunch>(&step.call)) {
    std::vector<std::byte*> pointers;
    for (const Ref& argument : launch->arguments) pointers.push_back(buffers_.address(program, slot, argument));
    std::vector<void*> parameters;
    for (std::byte*& pointer : pointers) parameters.push_back(&pointer);
    module_->launch(kernels_[static_cast<size_t>(program)][index], launch->grid, {launch->block, 1, 1},
                    parameters.data(), kernels);
  } else if (const auto* gemm = std::get_if<Gemm>(&step.call)) {
    gemms_->run(*gemm, addresses(program, slot, *gemm));
  } else if (const auto* convolution = std::get_if<Convolution>(&step.call)) {
    convolutions_->run(*convolution, addresses(program, slot, *convolution));
  } else if (const auto* attention = std::get_if<Attention>(&step.call)) {
    attentions_->run(*attention, addresses(program, slot, *attention));
  } else if (const auto* recurrent = std::get_if<Recurrent>(&step.call)) {
    recurrents_->run(*recurrent, [&](const Ref& ref) { return buffers_.address(program, slot, ref); });
  } else {
    const Copy& copy = std::get<Copy>(step.call);
    check(cudaMemcpyAsync(buffers_.address(program, slot, copy.to), buffers_.address(program, slot, copy.from),
                          static_cast<size_t>(copy.bytes), cudaMemcpyDeviceToDevice, kernels.get()),
          "cudaMemcpyAsync");
  }
}

// Two lanes that wait for each other only where their steps touch the same memory: a weight's gradient (a library call
// off the critical path) then overlaps with the kernels of the layer before it.
void CudaExecutor::enqueue_program(int program, int slot) {
  const std::vector<Step>& steps = program_at(program).steps;
  const std::vector<std::vector<size_t>> waits = dependencies(program_at(program));
  const auto lane = [&](size_t step) -> const CudaStream& {
    return is_library(steps[step].call) ? compute_ : kernels_lane_;
  };
  const auto wait_for = [](const CudaStream& stream, const CudaEvent& event) {
    check(cudaStreamWaitEvent(stream.get(), event.get(), 0), "cudaStreamWaitEvent");
  };
  std::vector<CudaEvent> done;
  for (size_t i = 0; i <= steps.size(); ++i) done.emplace_back(EventKind::ordering);
  done.back().record(compute_);  // the fork
  wait_for(kernels_lane_, done.back());
  for (size_t i = 0; i < steps.size(); ++i) {
    for (size_t earlier : waits[i])
      if (&lane(earlier) != &lane(i)) wait_for(lane(i), done[earlier]);
    at_step(steps[i], [&] { enqueue(program, slot, i, kernels_lane_); });
    done[i].record(lane(i));
  }
  done.back().record(kernels_lane_);
  wait_for(compute_, done.back());
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
    std::memcpy(value.data.data(), slot.results.data() + entry.offset, value.data.size());
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
  check(cudaStreamWaitEvent(compute_.get(), slot.copied.get(), 0), "cudaStreamWaitEvent");
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
  slot.graphs[static_cast<size_t>(slot.program)].launch(compute_);
  slot.done.record(compute_);
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
  compute_.synchronize();
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
                        compute_.get()),
        "cudaMemcpyAsync");
  compute_.synchronize();
}

std::vector<std::string> CudaExecutor::remarks() const {
  std::vector<std::string> all = remarks_;
  all.insert(all.end(), choices_.remarks().begin(), choices_.remarks().end());
  return all;
}

MemoryReport CudaExecutor::memory() const {
  return {buffers_.state_bytes(), buffers_.scratch_bytes(), workspace_.size(), measured_bytes_};
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
                          static_cast<size_t>(bytes), cudaMemcpyHostToDevice, compute_.get()),
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
      const double time = time_call(compute_, [&] { enqueue(program, slot, i, compute_); }, repeats);
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
  graph.launch(compute_);  // the first launch is slower
  std::vector<CudaEvent> events;
  for (int i = 0; i <= repeats; ++i) events.emplace_back(EventKind::timing);
  events[0].record(compute_);
  for (int i = 0; i < repeats; ++i) {
    graph.launch(compute_);
    events[static_cast<size_t>(i) + 1].record(compute_);
  }
  compute_.synchronize();
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
