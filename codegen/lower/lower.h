// Lowering: a fused graph becomes a Program. Every value gets a place, every kernel and library call a step.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "codegen/emit/module.h"
#include "ir/graph.h"
#include "program/program.h"

namespace halfstep {

struct LoweredProgram {
  Program program;
  NamedTensors constants;  // initial contents of the state buffers that hold the graph's larger constants
  std::vector<std::pair<int64_t, std::string>> values;  // bytes, and type and node, of every value in scratch
  int64_t scratch_floor = 0;  // bytes alive at once in the fullest step: no plan needs less scratch than this
};

// How many calls more what a library call reads or makes stays on `device`, so that kernels can run beside it.
int overlapping_calls(DeviceKind device);

// Bytes of values in scratch up to which each has memory of its own: what fits the caches of the GPUs whose steps run
// calls beside each other. Larger steps share memory, and so does the CPU, which runs one call at a time.
int64_t apart_bytes(DeviceKind device);

// `graph` holds leaves, fused regions, contractions, views and arenas only (passes/fusion/fuse.h). Kernels are emitted
// into `module`. Updates are written in place where no later step reads the old value, else copied at the end.
LoweredProgram lower(const Graph& graph, const std::string& program_name, KernelModule& module, int64_t apart = 0);

}  // namespace halfstep
