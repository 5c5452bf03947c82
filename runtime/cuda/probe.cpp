#include <fmt/format.h>

#include "base/error.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda_probe.h"

namespace halfstep {
namespace {

// CUDA and cuBLAS: 13010 is 13.1; cuDNN: 91900 is 9.19.
std::string library_versions() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  const auto cublas = static_cast<int>(cublasLtGetVersion());
  const auto cudnn = static_cast<int>(cudnnGetVersion());
  return fmt::format("driver for CUDA {}.{}, CUDA {}.{}, cuBLASLt {}.{}.{}, cuDNN {}.{}.{}", driver / 1000,
                     driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, cublas / 10000, cublas % 10000 / 100,
                     cublas % 100, cudnn / 10000, cudnn % 10000 / 100, cudnn % 100);
}

}  // namespace
}  // namespace halfstep

extern "C" void halfstep_probe_cuda(int device_index, halfstep::CudaProbe* probe) {
  using namespace halfstep;
  try {
    const CudaDevice device = CudaDevice::open(device_index);
    probe->device = device.name;
    probe->architecture = fmt::format("sm_{}", device.capability);
    probe->memory_bytes = device.memory_bytes;
    probe->libraries = library_versions();
    probe->available = true;
  } catch (const Error& error) {
    probe->reason = error.what();
  }
}
