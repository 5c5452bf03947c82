#include "runtime/cuda/cudnn_overflow.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/checked.h"
#include "runtime/cuda/check.h"

namespace halfstep {
namespace {

constexpr int kAllPlans = 64;
constexpr int64_t kWorkspaceLimit = int64_t{64} << 20;

struct Sample {
  int64_t x = 0, w = 0, y = 0;  // elements
  explicit Sample(const Convolution& c)
      : x(c.batch * c.in_channels * checked_element_count(c.spatial, "convolution")),
        w(c.out_channels * (c.in_channels / c.groups) * checked_element_count(c.window, "convolution")),
        y(c.batch * c.out_channels * checked_element_count(c.out_spatial, "convolution")) {}
};

DeviceMemory filled(DType type, int64_t elements, double value) {
  const Tensor tensor =
      Tensor::from_values({type, {elements}}, std::vector<double>(static_cast<size_t>(elements), value));
  DeviceMemory memory(std::max<int64_t>(16, tensor.type.byte_count()));
  check(cudaMemcpy(memory.data(), tensor.data.data(), tensor.data.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  return memory;
}

}  // namespace

bool OverflowProbe::shows_overflows(const Convolution& problem, int64_t engine) {
  if (!is_low(problem.result)) return true;
  const auto [at, is_new] = known_.try_emplace({problem.kind, problem.operand, engine}, true);
  if (is_new) at->second = observe(problem, engine);
  return at->second;
}

// Each product alone overflows, so every result that has one does. The sign of the filters, or of the gradient that
// makes them, turns the sign of all.
bool OverflowProbe::observe(const Convolution& problem, int64_t engine) const {
  Convolution c = problem;
  c.batch = 1;
  c.bias.reset();
  c.relu = false;
  std::string reason;
  const bool forward = c.kind == ConvolutionKind::forward, filters = c.kind == ConvolutionKind::filter_grad;
  const Sample count(c);
  const double factor = 4, large = c.operand == DType::f16 ? 65504 : 0x1.fep127;
  for (const Engines kind : {Engines::precompiled, Engines::compiled_at_runtime}) {
    const std::vector<CudnnPlan> plans =
        build_plans(handle_, c, {Tf32::refuse, kind, kWorkspaceLimit, kAllPlans}, reason);
    const auto plan = std::ranges::find(plans, engine, &CudnnPlan::engine);
    if (plan == plans.end()) continue;
    const DeviceMemory workspace(std::max<int64_t>(16, plan->workspace_bytes));
    std::array<std::vector<double>, 2> results;
    for (size_t i = 0; i < 2; ++i) {
      const double signed_large = i == 0 ? large : -large;
      const DeviceMemory x = filled(c.operand, count.x, factor);
      const DeviceMemory w = filled(c.operand, count.w, signed_large);
      const DeviceMemory y = filled(c.operand, count.y, filters ? signed_large : factor);
      try {
        execute(handle_, *plan, {x.data(), w.data(), y.data(), nullptr}, workspace.data());
      } catch (const Error&) {  // it will not be chosen either
        return true;
      }
      const DeviceMemory& result = forward ? y : filters ? w : x;
      Tensor found({c.result, {forward ? count.y : filters ? count.w : count.x}});
      check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
      check(cudaMemcpy(found.data.data(), result.data(), found.data.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
      results[i] = found.values();
    }
    return std::ranges::equal(results[0], results[1], [](double positive, double negative) {
      return positive == -negative && (positive == 0 || std::isinf(positive));
    });
  }
  return true;
}

}  // namespace halfstep
