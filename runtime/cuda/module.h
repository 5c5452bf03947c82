// Kernels from PTX text, through the driver's own entry points: the library itself is linked without libcuda, so that
// it loads, and says what is missing, on a machine without a driver.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/cuda/device.h"

namespace halfstep {

struct CudaDriver {
  PFN_cuModuleLoadDataEx_v2010 load_module = nullptr;
  PFN_cuModuleUnload_v2000 unload_module = nullptr;
  PFN_cuModuleGetFunction_v2000 find_function = nullptr;
  PFN_cuLaunchKernel_v4000 launch_kernel = nullptr;
  PFN_cuGetErrorString_v6000 error_string = nullptr;

  CudaDriver();
  void check(CUresult status, const char* call) const;
};

class CudaModule {
 public:
  // Compiles for the current device, large modules on several threads; throws Error with the compiler's log.
  explicit CudaModule(const std::string& ptx);
  ~CudaModule();
  CudaModule(const CudaModule&) = delete;
  CudaModule& operator=(const CudaModule&) = delete;

  CUfunction find(const std::string& kernel) const;
  // `parameters[i]` points to the value of parameter i.
  void launch(CUfunction kernel, const std::array<int64_t, 3>& grid, const std::array<int64_t, 3>& block,
              void** parameters, const CudaStream& stream) const;

 private:
  CUmodule compile(const std::string& ptx) const;
  void unload();

  CudaDriver driver_;
  std::vector<CUmodule> modules_;  // each with some of the kernels
};

}  // namespace halfstep
