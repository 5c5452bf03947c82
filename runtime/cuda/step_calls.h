// The calls of a model's steps, prepared: kernels found, algorithms of the libraries chosen.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "program/kept_choices.h"
#include "program/program.h"
#include "runtime/cuda/attention.h"
#include "runtime/cuda/buffers.h"
#include "runtime/cuda/convolution.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/gemm.h"
#include "runtime/cuda/module.h"
#include "runtime/cuda/nvtx.h"
#include "runtime/cuda/recurrent.h"
#include "runtime/cuda/rows.h"
#include "runtime/executor.h"

namespace halfstep {

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

class StepCalls {
 public:
  // Algorithms are timed on `main` and on the programs' own memory, which holds nothing yet. What was chosen is added
  // to `choices`, the time that it took to `times`. All of these must outlive it.
  StepCalls(const CompiledModel& model, const CudaDevice& device, const DeviceBuffers& buffers,
            const ExecutorOptions& options, DeviceLane& main, ChoiceStore& choices, LoadTimes& times);

  // Attention and recurrent networks run on `main` alone. The lane's workspace must hold workspace_bytes() if the step
  // is a library call.
  void enqueue(int program, int slot, size_t step, const DeviceLane& lane);
  int64_t workspace_bytes() const;
  const std::vector<std::string>& remarks() const { return remarks_; }

 private:
  void find_kernels(const CudaDevice& device);
  void prepare_libraries(const ExecutorOptions& options);
  GemmAddresses addresses(int program, int slot, const Gemm& gemm) const;
  CudnnOperands addresses(int program, int slot, const Convolution& convolution) const;
  AttentionAddresses addresses(int program, int slot, const Attention& attention) const;

  const CompiledModel& model_;
  const DeviceBuffers& buffers_;
  DeviceLane& main_;
  ChoiceStore& choices_;
  std::vector<std::string> remarks_;  // of the kernels
  std::unique_ptr<CudaModule> module_;
  struct Kernel {
    CUfunction function = nullptr;  // null where the step is no kernel
    int64_t shared = 0;             // bytes of dynamic shared memory
  };
  std::vector<std::vector<Kernel>> kernels_;  // by program and step
  RowsKernels rows_;
  std::optional<CublasGemms> gemms_;
  std::optional<CudnnConvolutions> convolutions_;
  std::optional<CudnnAttentions> attentions_;
  std::optional<CudnnRecurrents> recurrents_;
};

}  // namespace halfstep
