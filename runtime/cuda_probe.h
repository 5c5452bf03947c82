// What CUDA there is on this machine.
#pragma once

#include <cstdint>
#include <string>

namespace halfstep {

struct CudaProbe {
  bool available = false;
  std::string device;        // "NVIDIA H100 80GB HBM3"
  std::string architecture;  // "sm_90"
  int64_t memory_bytes = 0;
  std::string libraries;  // versions of driver, CUDA, cuBLASLt, cuDNN
  std::string reason;     // where not available: why
};

// Looks for the CUDA runtime library of ours and a device; never throws.
CudaProbe probe_cuda(int device_index);

}  // namespace halfstep

// Exported by libhalfstep_cuda.so.
extern "C" void halfstep_probe_cuda(int device_index, halfstep::CudaProbe* probe);
