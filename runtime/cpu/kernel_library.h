// The compiled kernels of a CPU step: an ELF shared object, loaded from memory.
#pragma once

#include <cstdint>
#include <string>

namespace halfstep {

// Computes units [begin, end).
using CpuKernel = void (*)(void* const* arguments, int64_t begin, int64_t end);

class KernelLibrary {
 public:
  // Throws Error if the bytes cannot be loaded here; empty bytes are a library without kernels.
  explicit KernelLibrary(const std::string& bytes);
  ~KernelLibrary();
  KernelLibrary(const KernelLibrary&) = delete;
  KernelLibrary& operator=(const KernelLibrary&) = delete;

  // Throws Error if there is no such kernel.
  CpuKernel find(const std::string& name) const;

 private:
  int file_ = -1;
  void* handle_ = nullptr;
};

}  // namespace halfstep
