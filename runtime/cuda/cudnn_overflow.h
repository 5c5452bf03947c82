// Engines of cuDNN that lose overflows.
#pragma once

#include <map>
#include <tuple>

#include "runtime/cuda/cudnn_graph.h"
#include "runtime/cuda/device.h"

namespace halfstep {

// Engine 47 of cuDNN 9 gives 0 where a forward result in f16 is below the least number: a forward pass that overflowed
// would look sound, and its loss scale would stay. So each engine shows once what it does with overflows.
class OverflowProbe {
 public:
  OverflowProbe(cudnnHandle_t handle, const CudaStream& stream) : handle_(handle), stream_(stream) {}

  // Whether the engine's low results are infinities, with their sign, where they overflow; on one sample of `problem`
  // without bias and relu. True for an engine that does not take that, and for wide results.
  bool shows_overflows(const Convolution& problem, int64_t engine);

 private:
  bool observe(const Convolution& problem, int64_t engine) const;

  cudnnHandle_t handle_;
  const CudaStream& stream_;
  std::map<std::tuple<ConvolutionKind, DType, int64_t>, bool> known_;
};

}  // namespace halfstep
