// Compiles a graph of primitive and composite ops for a device, runs it once and returns its outputs.
#pragma once

#include <cstring>

#include "codegen/lower.h"
#include "codegen/module.h"
#include "passes/expand_composites.h"
#include "passes/fuse.h"
#include "passes/simplify.h"
#include "runtime/executor.h"

namespace halfstep {

struct CompiledGraph {
  std::unique_ptr<Executor> executor;

  NamedTensors run(const NamedTensors& inputs) {
    const std::vector<std::span<std::byte>> staging = executor->begin_step(0);
    size_t next = 0;
    for (const Buffer& buffer : executor->model().programs[0].buffers)
      if (buffer.kind == BufferKind::input) {
        const Tensor& value = inputs.at(buffer.name);
        if (!value.data.empty()) std::memcpy(staging[next].data(), value.data.data(), value.data.size());
        ++next;
      }
    executor->submit();
    return executor->poll(Wait::yes)->outputs;
  }
};

inline CompiledGraph compile_graph(const Graph& graph, DeviceKind device) {
  const Graph fused = fuse(simplify(expand_composites(graph)));
  KernelModule module({device, device == DeviceKind::cuda ? "sm_80" : host_cpu()});
  LoweredProgram lowered = lower(fused, "train", module);
  CompiledModel model;
  model.device = device;
  model.architecture = module.target().architecture;
  model.programs.push_back(std::move(lowered.program));
  model.state = std::move(lowered.constants);
  model.kernels = module.finish();
  return {make_executor(std::move(model), {})};
}

}  // namespace halfstep
