// One step of a program, bound to memory and ready to run again and again.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>

#include "program/program.h"
#include "runtime/cpu/kernel_library.h"
#include "runtime/cpu/thread_team.h"

namespace halfstep {

class CpuCall {
 public:
  virtual ~CpuCall() = default;
  // Scratch the call needs while it runs; all calls share one workspace, 64-byte aligned.
  virtual int64_t workspace_bytes() const { return 0; }
  // Before the first run, once.
  virtual void bind(std::byte* /*workspace*/) {}
  virtual void run() = 0;
};

using AddressOf = std::function<std::byte*(Ref)>;

// The call must have passed check(Program). Throws Error where the kernel is missing.
std::unique_ptr<CpuCall> make_kernel_call(const KernelLaunch& launch, const AddressOf& address,
                                          const KernelLibrary& kernels, const ThreadTeam& team);
std::unique_ptr<CpuCall> make_copy_call(const Copy& copy, const AddressOf& address);

// f64, which oneDNN does not have: plain loops on one thread.
std::unique_ptr<CpuCall> make_plain_call(const Gemm& gemm, const AddressOf& address);
std::unique_ptr<CpuCall> make_plain_call(const Convolution& convolution, const AddressOf& address);

}  // namespace halfstep
