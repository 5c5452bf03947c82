// Versions of what runs a step on CUDA.
#pragma once

#include <string>

#include "program/kept_choices.h"
#include "runtime/cuda/device.h"
#include "runtime/executor.h"

namespace halfstep {

// "driver for CUDA 13.0, CUDA 13.0, cuBLASLt 13.0.2, cuDNN 9.19.0".
std::string library_versions();

// What choices hold for; settings that do not touch them are left out.
ChoiceKey choice_key(const CudaDevice& device, const ExecutorOptions& options);

}  // namespace halfstep
