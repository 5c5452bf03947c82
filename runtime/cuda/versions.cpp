#include "runtime/cuda/versions.h"

#include <fmt/format.h>

#include "base/version.h"
#include "runtime/cuda/check.h"

namespace halfstep {

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

ChoiceKey choice_key(const CudaDevice& device, const ExecutorOptions& options) {
  return {fmt::format("{}, sm_{}, {} multiprocessors", device.name, device.capability, device.multiprocessors),
          library_versions(),
          fmt::format("halfstep {}, tf32 {}, autotune {}", version_and_commit(),
                      options.allow_tf32 ? "allowed" : "refused", options.autotune)};
}

}  // namespace halfstep
