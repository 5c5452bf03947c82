// Compiles graphs for a device and runs them with inputs by name.
#pragma once

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "codegen/emit/module.h"
#include "codegen/lower/lower.h"
#include "passes/fusion/fuse.h"
#include "passes/pipeline.h"
#include "passes/rewrite/expand_composites.h"
#include "passes/rewrite/simplify.h"
#include "runtime/executor.h"

namespace halfstep {

// One thread: tests run side by side, and a team of threads waits for its slowest.
inline const ExecutorOptions kTestExecutor{.threads = 1};

// The outputs of one run of the program `name`; `inputs` may hold more than it reads.
inline NamedTensors run_program(Executor& executor, std::string_view name, const NamedTensors& inputs) {
  const std::vector<Program>& programs = executor.model().programs;
  const auto program = std::ranges::find(programs, name, &Program::name);
  require(program != programs.end(), "the model has the program");
  const std::vector<std::span<std::byte>> staging = executor.begin_step(static_cast<int>(program - programs.begin()));
  size_t next = 0;
  for (const Buffer& buffer : program->buffers)
    if (buffer.kind == BufferKind::input) {
      const Tensor& value = inputs.at(buffer.name);
      require(value.type == buffer.type, "the input has the buffer's type");
      if (!value.data.empty()) std::memcpy(staging[next].data(), value.data.data(), value.data.size());
      ++next;
    }
  executor.submit();
  return executor.poll(Wait::yes)->outputs;
}

struct CompiledGraph {
  std::unique_ptr<Executor> executor;

  NamedTensors run(const NamedTensors& inputs) { return run_program(*executor, "train", inputs); }
};

inline KernelModule kernel_module(DeviceKind device) {
  return KernelModule({device, device == DeviceKind::cuda ? "sm_80" : host_cpu()});
}

// A graph of primitive and composite ops.
inline CompiledModel compiled_model(const Graph& graph, DeviceKind device, LibraryCalls calls = LibraryCalls::expand) {
  const Graph fused = fuse(simplify(expand_composites(graph, calls)));
  KernelModule module = kernel_module(device);
  LoweredProgram lowered = lower(fused, "train", module);
  CompiledModel model;
  model.device = device;
  model.architecture = module.target().architecture;
  model.programs.push_back(std::move(lowered.program));
  model.state = std::move(lowered.constants);
  model.kernels = module.finish();
  return model;
}

inline CompiledGraph compile_graph(const Graph& graph, DeviceKind device, LibraryCalls calls = LibraryCalls::expand) {
  return {make_executor(compiled_model(graph, device, calls), kTestExecutor)};
}

// The programs of a whole training step of `model`; weights and slots start at zero.
inline std::unique_ptr<Executor> compile_step(const Graph& model, const TrainingPipelineOptions& options,
                                              DeviceKind device) {
  const PipelineResult graphs = run_training_pipeline(model, options);
  KernelModule module = kernel_module(device);
  CompiledModel compiled;
  compiled.device = device;
  compiled.architecture = module.target().architecture;
  for (const Graph& graph : graphs.graphs) {
    LoweredProgram lowered = lower(graph, graph.name(), module);
    compiled.programs.push_back(std::move(lowered.program));
    compiled.state.merge(lowered.constants);
  }
  compiled.kernels = module.finish();
  compiled.arenas = graphs.arena_states;
  for (const ArenaSlice& slice : graphs.arenas.slices)
    compiled.parameters.push_back({slice.name, slice.shape, slice.permutation, slice.offset});
  for (const auto& [name, value] : graphs.initial_states) compiled.state[name] = value;
  return make_executor(std::move(compiled), kTestExecutor);
}

}  // namespace halfstep
