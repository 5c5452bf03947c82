// What engines of cuDNN do with results that overflow.
#include <fmt/format.h>

#include <map>
#include <set>

#include "runtime/cuda/check.h"
#include "runtime/cuda/cudnn_overflow.h"
#include "tests/gpu/gpu_test.h"

namespace halfstep {
namespace {

Convolution problem(ConvolutionKind kind, int64_t in, int64_t out, int64_t size, int64_t window, int64_t pad,
                    int64_t stride, int64_t groups) {
  Convolution c;
  c.kind = kind;
  c.batch = 2, c.in_channels = in, c.out_channels = out, c.groups = groups;
  c.spatial = {size, size};
  c.window = {window, window};
  c.pads_begin = c.pads_end = {pad, pad};
  c.strides = {stride, stride};
  c.dilations = {1, 1};
  c.out_spatial = Shape(2, (size + 2 * pad - window) / stride + 1);
  c.operand = c.result = c.bias_type = DType::f16;
  return c;
}

struct Channels {
  int64_t in, out, groups;
};
struct Window {
  int64_t size, window, pad, stride;
};

class CudnnOverflow : public GpuTest {};

TEST_F(CudnnOverflow, IsInfiniteOrTheEngineIsRefusedOnTheGpu) {
  const CudaStream stream;
  const CudnnHandle handle = make_cudnn_handle();
  check(cudnnSetStream(handle.get(), stream.get()), "cudnnSetStream");
  std::map<std::pair<ConvolutionKind, int64_t>, std::set<bool>> sound;
  for (const ConvolutionKind kind :
       {ConvolutionKind::forward, ConvolutionKind::data_grad, ConvolutionKind::filter_grad})
    for (const auto [in, out, groups] :
         {Channels{4, 8, 1}, {8, 8, 1}, {4, 64, 1}, {64, 64, 1}, {32, 32, 32}, {4, 4, 1}})
      for (const auto [size, window, pad, stride] : {Window{4, 3, 0, 1}, {8, 1, 0, 1}, {16, 7, 3, 2}, {8, 3, 1, 2}}) {
        const Convolution c = problem(kind, in, out, size, window, pad, stride, groups);
        std::string reason;
        for (const CudnnPlan& plan :
             build_plans(handle.get(), c, {Tf32::refuse, Engines::precompiled, int64_t{1} << 28, 64}, reason))
          // A probe of its own: what an engine does must not depend on the shape it was asked for first.
          sound[{kind, plan.engine}].insert(OverflowProbe(handle.get(), stream).shows_overflows(c, plan.engine));
      }
  size_t refused = 0;
  for (const auto& [engine, answers] : sound) {
    EXPECT_EQ(answers.size(), 1u) << name(engine.first) << " engine " << engine.second;
    refused += answers.contains(false);
  }
  fmt::print("{} engines, {} lose overflows\n", sound.size(), refused);
}

}  // namespace
}  // namespace halfstep
