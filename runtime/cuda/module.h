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

#include "program/kept_choices.h"
#include "program/program.h"
#include "runtime/cuda/device.h"

namespace halfstep {

struct CudaDriver {
  PFN_cuModuleLoadDataEx_v2010 load_module = nullptr;
  PFN_cuModuleUnload_v2000 unload_module = nullptr;
  PFN_cuModuleGetFunction_v2000 find_function = nullptr;
  PFN_cuLaunchKernel_v4000 launch_kernel = nullptr;
  PFN_cuFuncGetAttribute_v2020 function_attribute = nullptr;
  PFN_cuFuncSetAttribute_v9000 set_function_attribute = nullptr;
  PFN_cuOccupancyMaxActiveBlocksPerMultiprocessor_v6050 resident_blocks = nullptr;
  PFN_cuGetErrorString_v6000 error_string = nullptr;

  CudaDriver();
  void check(CUresult status, const char* call) const;
};

class CudaModule {
 public:
  // PTX, which the driver compiles, or machine code for the current device, each with some of the kernels; several at
  // once on threads. Throws Error with the compiler's log.
  explicit CudaModule(const std::vector<std::string>& images);
  ~CudaModule();
  CudaModule(const CudaModule&) = delete;
  CudaModule& operator=(const CudaModule&) = delete;

  CUfunction find(const std::string& kernel) const;
  // Bytes of dynamic shared memory for its blocks of `block` threads: as many of `wanted` as leave the number of blocks
  // that a processor of the current device holds at once. Launches may give that many from now on.
  int64_t allow_shared(CUfunction kernel, int64_t block, int64_t wanted) const;
  // `parameters[i]` points to the value of parameter i.
  void launch(CUfunction kernel, const std::array<int64_t, 3>& grid, const std::array<int64_t, 3>& block,
              int64_t shared, void** parameters, const CudaStream& stream) const;

 private:
  CUmodule load(const std::string& image) const;
  void unload();

  CudaDriver driver_;
  std::vector<CUmodule> modules_;  // each with some of the kernels
};

// The model's kernels on the current device, `device`: its machine code for it, or what an earlier start kept, or its
// PTX, compiled and kept. What does not load is told in `remarks`, and the next of these taken.
std::unique_ptr<CudaModule> load_kernels(const CompiledModel& model, const CudaDevice& device, ChoiceStore& choices,
                                         std::vector<std::string>& remarks);

}  // namespace halfstep
