// What kernels are compiled for.
#pragma once

#include <string>

#include "program/program.h"

namespace halfstep {

struct KernelTarget {
  DeviceKind device = DeviceKind::cpu;
  std::string architecture;  // cuda: "sm_80" and later; cpu: LLVM's name, x86-64-v3 and later
  friend bool operator==(const KernelTarget&, const KernelTarget&) = default;
};

// LLVM's name of the processor at hand.
std::string host_cpu();
// "LLVM 19.1.4".
std::string llvm_version();

}  // namespace halfstep
