// Machine code for GPUs: which architecture it is for, and where it runs.
#pragma once

#include <string>
#include <string_view>

#include "program/program.h"

namespace halfstep {

struct GpuArchitecture {
  int capability = 0;     // 90 for "sm_90"
  bool specific = false;  // "sm_90a": uses instructions of that one architecture
};
// Throws Error that says what was expected.
GpuArchitecture parse_gpu_architecture(std::string_view text);

// The architecture whose machine code in `model` runs on a GPU of this capability; empty: there is none, and the PTX is
// what runs. Code runs on GPUs of its major version that are as new or newer.
std::string fitting_cubin(const CompiledModel& model, int capability);

}  // namespace halfstep
