#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <fmt/format.h>

#include "runtime/cuda_probe.h"

extern "C" void halfstep_probe_cuda(int device_index, halfstep::CudaProbe* probe) {
  int driver = 0, runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  const auto version = [](int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); };
  const size_t cublas = cublasLtGetVersion(), cudnn = cudnnGetVersion();
  probe->libraries =
      fmt::format("driver for CUDA {}, CUDA runtime {}, cuBLASLt {}.{}, cuDNN {}.{}", version(driver), version(runtime),
                  cublas / 10000, cublas % 10000 / 100, cudnn / 10000, cudnn % 10000 / 100);
  cudaDeviceProp properties{};
  if (const cudaError_t status = cudaGetDeviceProperties(&properties, device_index); status != cudaSuccess) {
    probe->reason = cudaGetErrorString(status);
    return;
  }
  probe->available = true;
  probe->device = properties.name;
  probe->architecture = fmt::format("sm_{}{}", properties.major, properties.minor);
  probe->memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
}
