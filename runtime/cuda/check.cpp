#include "runtime/cuda/check.h"

#include <fmt/format.h>

#include "base/error.h"

namespace halfstep {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky must not surface again in an unrelated call
  throw Error(fmt::format("{} failed: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status)));
}

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(fmt::format("{} failed: {} ({})", call, cublasLtGetStatusString(status), cublasLtGetStatusName(status)));
}

void check(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char message[512] = "";
  cudnnGetLastErrorString(message, sizeof message);
  throw Error(fmt::format("{} failed: {}{}{}", call, cudnnGetErrorString(status), message[0] ? ": " : "", message));
}

}  // namespace halfstep
