// Executor: runs the programs of one CompiledModel on one device.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "program/program.h"

namespace halfstep {

// What one submitted step left in its output buffers, by name.
struct StepResult {
  int64_t ticket = 0;
  NamedTensors outputs;
};

struct ExecutorCounters {
  int64_t steps = 0;
  int64_t graph_launches = 0;
  int64_t stream_synchronisations = 0;  // host waited for the device inside submit: stays 0
  int64_t slot_waits = 0;               // begin_step waited because every input slot was in flight (back-pressure)
  int64_t result_waits = 0;             // poll(Wait::yes) had to wait
};

struct MemoryReport {
  int64_t state_bytes = 0;
  int64_t scratch_bytes = 0;    // planned
  int64_t workspace_bytes = 0;  // library workspaces
  int64_t measured_bytes = 0;   // device memory in use by this executor; resident set on the CPU
};

// What making the executor took, in milliseconds.
struct LoadTimes {
  double kernels = 0;    // PTX to machine code
  double libraries = 0;  // algorithms chosen
  double graphs = 0;     // first run and capture
};

struct StepTime {
  std::string origin;
  std::string call;  // "kernel fused_12", "gemm 128x512x784", ...
  double microseconds = 0;
  int64_t bytes = 0;
  double flops = 0;
};

enum class Wait : uint8_t { no, yes };

class Executor {
 public:
  virtual ~Executor() = default;

  virtual const CompiledModel& model() const = 0;

  // Host memory for the next step's inputs, one span per input buffer in program order, valid until submit. Writes go
  // straight to staging memory (pinned on CUDA). Waits only if every slot is in flight.
  virtual std::vector<std::span<std::byte>> begin_step(int program) = 0;
  // Starts the step begun last and returns its ticket without waiting for the device.
  virtual int64_t submit() = 0;
  // Memory of the executor's device, where it has one of its own. Work on `stream`, a handle of the device's API or
  // null for its default, that was there before is waited for, on the device.
  virtual bool on_device(const void* data) const;
  // The next submit copies input number `input` of the step begun last from `data`, on the device, instead of what is
  // staged; what comes on `stream` after it runs after the copy.
  virtual void take_from_device(size_t input, const void* data, void* stream);
  // These wait until the bytes are there.
  virtual void copy_from_device(std::span<std::byte> to, const void* from, void* stream);
  virtual void copy_to_device(void* to, std::span<const std::byte> from, void* stream);

  // Results in order of submission; nullopt: none outstanding, or (Wait::no) not ready.
  virtual std::optional<StepResult> poll(Wait wait) = 0;

  // State by buffer name. Both wait for the device; sizes and types must match the buffer.
  virtual Tensor read_state(const Name& name) = 0;
  virtual void write_state(const Name& name, const Tensor& value) = 0;

  virtual ExecutorCounters counters() const = 0;
  virtual MemoryReport memory() const = 0;
  virtual LoadTimes load_times() const { return {}; }
  // What the user should know of how it was made, a sentence each.
  virtual std::vector<std::string> remarks() const { return {}; }
  // Times every call of a program on the current state, `repeats` times each, outside the graph; the state is restored.
  // Here and below the inputs are those staged since begin_step, and what they happen to be without it.
  virtual std::vector<StepTime> profile(int program, int repeats) = 0;
  // Device time of whole steps in milliseconds; the state is restored.
  virtual std::vector<double> time_steps(int program, int repeats) = 0;
};

struct ExecutorOptions {
  int threads = 0;          // CPU: 0 means as many as usable_processors()
  bool allow_tf32 = false;  // CUDA, fp32 contractions
  int device_index = 0;
  int autotune = 8;  // CUDA: library algorithms timed per shape
  // CUDA: the directory of the compiled step, where what was tuned is kept for the next start; empty: nowhere.
  std::string keep_in = {};
};

// Loads libhalfstep_cpu.so beside this library. Throws Error where the device is missing, its memory is too small (with
// the largest buffers), or the kernels need another CPU or GPU.
std::unique_ptr<Executor> make_cpu_executor(CompiledModel model, const ExecutorOptions& options);
// Versions, and how many threads a step gets by default: "oneDNN 2.7.4, OpenMP with 8 threads".
std::string cpu_libraries();
// Loads libhalfstep_cuda.so beside this library.
std::unique_ptr<Executor> make_cuda_executor(CompiledModel model, const ExecutorOptions& options);
std::unique_ptr<Executor> make_executor(CompiledModel model, const ExecutorOptions& options);  // by model.device

// The symbols of the devices' libraries. Executors move from `model`; they throw as the functions above do.
extern "C" Executor* halfstep_make_cuda_executor(CompiledModel& model, const ExecutorOptions& options);
extern "C" Executor* halfstep_make_cpu_executor(CompiledModel& model, const ExecutorOptions& options);
extern "C" void halfstep_cpu_libraries(std::string& libraries);

}  // namespace halfstep
