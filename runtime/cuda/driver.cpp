#include "runtime/cuda/driver.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "base/error.h"
#include "runtime/cuda/check.h"

namespace halfstep {

void* find_driver_function(const char* name) {
  constexpr unsigned kVersion = 12000;
  void* address = nullptr;
  cudaDriverEntryPointQueryResult result{};
  check(cudaGetDriverEntryPointByVersion(name, &address, kVersion, cudaEnableLegacyStream, &result),
        "cudaGetDriverEntryPointByVersion");
  if (!address || result != cudaDriverEntryPointSuccess)
    throw Error(fmt::format("the CUDA driver has no {}; update the driver", name));
  return address;
}

}  // namespace halfstep
