#include "runtime/executor.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <fstream>

#include "base/error.h"
#include "program/host_cpu.h"
#include "program/initial_state.h"
#include "runtime/cpu/dnnl_call.h"
#include "runtime/cpu/host_memory.h"
#include "runtime/signals.h"

namespace halfstep {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

int64_t resident_bytes() {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// Each state once, the other buffers once a program.
std::map<std::string, int64_t> planned_bytes(const CompiledModel& model) {
  std::map<std::string, int64_t> planned;
  for (const Program& program : model.programs)
    for (const Buffer& buffer : program.buffers)
      planned[buffer.kind == BufferKind::state
                  ? fmt::format("state '{}'", to_string(buffer.name))
                  : fmt::format("{} '{}' of program '{}'", name(buffer.kind), to_string(buffer.name), program.name)] =
          buffer.type.byte_count();
  return planned;
}

void check_fits(const CompiledModel& model) {
  const double memory = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  std::vector<std::pair<int64_t, std::string>> largest;
  double planned = 0;
  for (const auto& [buffer, bytes] : planned_bytes(model)) {
    planned += static_cast<double>(bytes);
    largest.emplace_back(bytes, buffer);
  }
  if (planned <= memory) return;
  std::ranges::sort(largest, std::ranges::greater{});
  largest.resize(std::min<size_t>(largest.size(), 5));
  std::string message = fmt::format(
      "the step needs {:.1f} GiB, this machine has {:.1f} GiB: use a smaller batch; largest:", planned / (1 << 30),
      memory / (1 << 30));
  for (const auto& [bytes, buffer] : largest)
    message += fmt::format("\n  {:10.1f} MiB {}", static_cast<double>(bytes) / (1 << 20), buffer);
  throw Error(message);
}

// One buffer of state, or one of a program's own.
struct Place {
  TensorType type;
  HostMemory memory;

  explicit Place(const TensorType& buffer_type) : type(buffer_type), memory(buffer_type.byte_count()) {}
  std::span<std::byte> bytes() const { return {memory.data(), static_cast<size_t>(memory.size())}; }
  Tensor read() const {
    Tensor tensor(type);
    std::ranges::copy(bytes(), tensor.data.begin());
    return tensor;
  }
};

struct LoadedProgram {
  std::vector<Place> own;       // inputs, outputs, scratch
  std::vector<Place*> buffers;  // by buffer number
  std::vector<std::unique_ptr<CpuCall>> calls;
};

class CpuExecutor final : public Executor {
 public:
  CpuExecutor(CompiledModel model, const ExecutorOptions& options);

  const CompiledModel& model() const override { return model_; }
  std::vector<std::span<std::byte>> begin_step(int program) override;
  int64_t submit() override;
  std::optional<StepResult> poll(Wait wait) override;
  Tensor read_state(const Name& name) override { return state(name).read(); }
  void write_state(const Name& name, const Tensor& value) override;
  ExecutorCounters counters() const override { return counters_; }
  MemoryReport memory() const override;
  std::vector<StepTime> profile(int program, int repeats) override;
  std::vector<double> time_steps(int program, int repeats) override;

 private:
  void load(const Program& program);
  std::unique_ptr<CpuCall> make_call(const Step& step, const AddressOf& address) const;
  void bind_workspace();
  LoadedProgram& loaded(int program);
  Place& state(const Name& name);
  void run(LoadedProgram& program);
  // Runs `body` and puts back what it did to the state.
  template <typename Body>
  void keeping_state(const Body& body);

  CompiledModel model_;
  ThreadTeam team_;
  KernelLibrary kernels_;
  DnnlContext dnnl_;
  std::map<Name, Place> state_;
  std::vector<LoadedProgram> programs_;  // as in model_
  HostMemory workspace_;
  std::optional<int> begun_;
  std::deque<StepResult> results_;
  int64_t next_ticket_ = 0;
  ExecutorCounters counters_;
};

CpuExecutor::CpuExecutor(CompiledModel model, const ExecutorOptions& options)
    : model_(std::move(model)),
      team_(options.threads),
      kernels_(model_.kernels),
      dnnl_{team_, dnnl::engine(dnnl::engine::kind::cpu, 0), {}, bf16_products()} {
  dnnl_.stream = dnnl::stream(dnnl_.engine);
  const SignalsBlocked blocked;
  team_.enter();  // primitives are planned for a number of threads
  for (const Program& program : model_.programs) load(program);
  bind_workspace();
}

void CpuExecutor::load(const Program& program) {
  LoadedProgram& loaded = programs_.emplace_back();
  loaded.own.reserve(program.buffers.size());
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::state) {
      loaded.buffers.push_back(&loaded.own.emplace_back(buffer.type));
      continue;
    }
    const auto [place, added] = state_.try_emplace(buffer.name, buffer.type);
    if (added)
      read_initial_state(
          model_, buffer.name, buffer.type.dtype,
          [to = place->second.bytes().begin()](Piece piece) mutable { to = std::ranges::copy(piece, to).out; });
    loaded.buffers.push_back(&place->second);
  }
  const AddressOf address = [&](Ref ref) {
    return loaded.buffers[static_cast<size_t>(ref.buffer)]->memory.data() + ref.offset;
  };
  for (const Step& step : program.steps) {
    try {
      loaded.calls.push_back(make_call(step, address));
    } catch (const dnnl::error& error) {
      throw Error(
          fmt::format("program '{}', {} ('{}'): oneDNN: {}", program.name, describe(step), step.origin, error.what()));
    }
  }
}

std::unique_ptr<CpuCall> CpuExecutor::make_call(const Step& step, const AddressOf& address) const {
  return std::visit(
      [&]<typename Call>(const Call& call) -> std::unique_ptr<CpuCall> {
        if constexpr (std::is_same_v<Call, KernelLaunch>)
          return make_kernel_call(call, address, kernels_, team_);
        else if constexpr (std::is_same_v<Call, Copy>)
          return make_copy_call(call, address);
        else if constexpr (std::is_same_v<Call, Attention> || std::is_same_v<Call, Recurrent>)
          throw Error(describe(step) + " of '" + step.origin +
                      "' is a call of the CUDA runtime; compile for the CPU, where it is expanded");
        else
          return call.operand == DType::f64 ? make_plain_call(call, address) : make_dnnl_call(call, address, dnnl_);
      },
      step.call);
}

void CpuExecutor::bind_workspace() {
  int64_t bytes = 0;
  for (const LoadedProgram& program : programs_)
    for (const auto& call : program.calls) bytes = std::max(bytes, call->workspace_bytes());
  workspace_ = HostMemory(bytes);
  for (LoadedProgram& program : programs_)
    for (const auto& call : program.calls) call->bind(workspace_.data());
}

LoadedProgram& CpuExecutor::loaded(int program) {
  require(program >= 0 && static_cast<size_t>(program) < programs_.size(), "the model has this program");
  return programs_[static_cast<size_t>(program)];
}

Place& CpuExecutor::state(const Name& name) {
  const auto found = state_.find(name);
  if (found != state_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& item : state_) names.push_back(to_string(item.first));
  const std::string near = nearest(to_string(name), names);
  throw Error(fmt::format("the compiled step has no state '{}'{}", to_string(name),
                          near.empty() ? "" : fmt::format(": did you mean '{}'?", near)));
}

std::vector<std::span<std::byte>> CpuExecutor::begin_step(int program) {
  const LoadedProgram& to_run = loaded(program);
  std::vector<std::span<std::byte>> inputs;
  for (size_t i = 0; i < to_run.buffers.size(); ++i)
    if (model_.programs[static_cast<size_t>(program)].buffers[i].kind == BufferKind::input)
      inputs.push_back(to_run.buffers[i]->bytes());
  begun_ = program;
  return inputs;
}

void CpuExecutor::run(LoadedProgram& program) {
  const SignalsBlocked blocked;
  team_.enter();
  for (const auto& call : program.calls) call->run();
}

int64_t CpuExecutor::submit() {
  require(begun_.has_value(), "submit follows begin_step");
  LoadedProgram& program = loaded(*begun_);
  run(program);
  StepResult result{next_ticket_++, {}};
  const std::vector<Buffer>& buffers = model_.programs[static_cast<size_t>(*begun_)].buffers;
  for (size_t i = 0; i < buffers.size(); ++i)
    if (buffers[i].kind == BufferKind::output) result.outputs.emplace(buffers[i].name, program.buffers[i]->read());
  begun_.reset();
  ++counters_.steps;
  results_.push_back(std::move(result));
  return results_.back().ticket;
}

std::optional<StepResult> CpuExecutor::poll(Wait) {
  if (results_.empty()) return std::nullopt;
  StepResult result = std::move(results_.front());
  results_.pop_front();
  return result;
}

void CpuExecutor::write_state(const Name& name, const Tensor& value) {
  Place& place = state(name);
  if (place.type != value.type)
    throw Error(fmt::format("state '{}': type {} expected, found {}", to_string(name), to_string(place.type),
                            to_string(value.type)));
  std::ranges::copy(value.data, place.bytes().begin());
}

MemoryReport CpuExecutor::memory() const {
  MemoryReport report;
  for (const auto& item : state_) report.state_bytes += item.second.memory.size();
  for (const Program& program : model_.programs)
    for (const Buffer& buffer : program.buffers)
      if (buffer.kind == BufferKind::scratch) report.scratch_bytes += buffer.type.byte_count();
  report.workspace_bytes = workspace_.size();
  report.measured_bytes = resident_bytes();
  return report;
}

template <typename Body>
void CpuExecutor::keeping_state(const Body& body) {
  NamedTensors before;
  for (const auto& item : state_) before.emplace(item.first, item.second.read());
  body();
  for (const auto& item : before) write_state(item.first, item.second);
}

std::vector<StepTime> CpuExecutor::profile(int program, int repeats) {
  require(repeats > 0, "profile repeats at least once");
  LoadedProgram& timed = loaded(program);
  std::vector<std::vector<double>> times(timed.calls.size());
  keeping_state([&] {
    const SignalsBlocked blocked;
    team_.enter();
    for (int repeat = 0; repeat < repeats; ++repeat)
      for (size_t i = 0; i < timed.calls.size(); ++i) {
        const Clock::time_point start = Clock::now();
        timed.calls[i]->run();
        times[i].push_back(microseconds_since(start));
      }
  });
  std::vector<StepTime> result;
  for (size_t i = 0; i < timed.calls.size(); ++i) {
    const Step& step = model_.programs[static_cast<size_t>(program)].steps[i];
    const CallCost call_cost = cost(step);
    result.push_back({step.origin, describe(step), median(times[i]), call_cost.bytes, call_cost.flops});
  }
  return result;
}

std::vector<double> CpuExecutor::time_steps(int program, int repeats) {
  LoadedProgram& timed = loaded(program);
  std::vector<double> milliseconds;
  keeping_state([&] {
    for (int repeat = 0; repeat < repeats; ++repeat) {
      const Clock::time_point start = Clock::now();
      run(timed);
      milliseconds.push_back(microseconds_since(start) / 1000);
    }
  });
  return milliseconds;
}

}  // namespace

extern "C" void halfstep_cpu_libraries(std::string& libraries) {
  const dnnl_version_t& dnnl = *dnnl_version();
  libraries =
      fmt::format("oneDNN {}.{}.{}, OpenMP with {} threads", dnnl.major, dnnl.minor, dnnl.patch, ThreadTeam(0).size());
}

extern "C" Executor* halfstep_make_cpu_executor(CompiledModel& model, const ExecutorOptions& options) {
  if (model.device != DeviceKind::cpu)
    throw Error(fmt::format("the step is compiled for device {}: compile it for cpu", name(model.device)));
  check(model);
  check_host_runs(model);
  check_fits(model);
  return new CpuExecutor(std::move(model), options);
}

}  // namespace halfstep
