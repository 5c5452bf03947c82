#include <fmt/format.h>

#include "base/error.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/versions.h"
#include "runtime/cuda_probe.h"

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
