// Return codes of CUDA and its libraries as Errors: "cudaMalloc failed: out of memory (cudaErrorMemoryAllocation)".
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <string>

namespace halfstep {

void check(cudaError_t status, const char* call);
void check(cublasStatus_t status, const char* call);
// With the library's last message on this thread.
void check(cudnnStatus_t status, const char* call);

}  // namespace halfstep
