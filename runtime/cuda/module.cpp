#include "runtime/cuda/module.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "runtime/cuda/check.h"

namespace halfstep {
namespace {

constexpr unsigned kDriverVersion = 12000;  // introduced every function below

template <typename Function>
void resolve(const char* name, Function& function) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult result{};
  check(cudaGetDriverEntryPointByVersion(name, &address, kDriverVersion, cudaEnableLegacyStream, &result),
        "cudaGetDriverEntryPointByVersion");
  if (!address || result != cudaDriverEntryPointSuccess) {
    throw Error(fmt::format("the CUDA driver has no {}; update the driver", name));
  }
  function = reinterpret_cast<Function>(address);
}

unsigned launch_size(int64_t value) {
  if (value < 1 || value > std::numeric_limits<unsigned>::max()) {
    throw Error(fmt::format("launch dimension {} is out of range", value));
  }
  return static_cast<unsigned>(value);
}

}  // namespace

CudaDriver::CudaDriver() {
  resolve("cuModuleLoadDataEx", load_module);
  resolve("cuModuleUnload", unload_module);
  resolve("cuModuleGetFunction", find_function);
  resolve("cuLaunchKernel", launch_kernel);
  resolve("cuGetErrorString", error_string);
}

void CudaDriver::check(CUresult status, const char* call) const {
  if (status == CUDA_SUCCESS) return;
  const char* text = nullptr;
  error_string(status, &text);
  throw Error(
      fmt::format("{} failed: {} (driver error {})", call, text ? text : "unknown error", static_cast<int>(status)));
}

KernelModule::KernelModule(const std::string& ptx) {
  std::vector<char> log(16384);
  CUjit_option names[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_SPLIT_COMPILE};
  void* values[] = {log.data(), reinterpret_cast<void*>(log.size()), nullptr};  // split 0: a compiler thread per core
  CUresult status = driver_.load_module(&module_, ptx.c_str(), 3, names, values);
  if (status == CUDA_ERROR_INVALID_VALUE) {  // a driver that does not know the last option
    values[1] = reinterpret_cast<void*>(log.size());
    status = driver_.load_module(&module_, ptx.c_str(), 2, names, values);
  }
  std::string_view text(log.data(), std::ranges::find(log, '\0') - log.begin());
  while (text.ends_with('\n')) text.remove_suffix(1);
  if (status != CUDA_SUCCESS && !text.empty()) {
    throw Error(fmt::format("cuModuleLoadDataEx failed for the compiled kernels: {}", text));
  }
  driver_.check(status, "cuModuleLoadDataEx");
}

KernelModule::~KernelModule() { driver_.unload_module(module_); }

CUfunction KernelModule::find(const std::string& kernel) const {
  CUfunction function = nullptr;
  const CUresult status = driver_.find_function(&function, module_, kernel.c_str());
  if (status == CUDA_ERROR_NOT_FOUND) throw Error(fmt::format("the compiled kernels contain no '{}'", kernel));
  driver_.check(status, "cuModuleGetFunction");
  return function;
}

void KernelModule::launch(CUfunction kernel, const std::array<int64_t, 3>& grid, const std::array<int64_t, 3>& block,
                          void** parameters, const CudaStream& stream) const {
  driver_.check(driver_.launch_kernel(kernel, launch_size(grid[0]), launch_size(grid[1]), launch_size(grid[2]),
                                      launch_size(block[0]), launch_size(block[1]), launch_size(block[2]), 0,
                                      stream.get(), parameters, nullptr),
                "cuLaunchKernel");
}

}  // namespace halfstep
