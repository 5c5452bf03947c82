#include "runtime/cuda/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "runtime/cuda/check.h"

namespace halfstep {
namespace {

// Since then engines clear what they accumulate into, and take -infinity for what is hidden.
constexpr size_t kOldest = 91000;

std::string key_of(const Attention& a) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {}", name(a.kind), a.batch, a.heads, a.key_heads, a.queries,
                     a.keys, a.depth, a.value_depth, a.scale, a.causal, a.deterministic, name(a.operand));
}

}  // namespace

CudnnAttentions::CudnnAttentions(const CudaStream& stream, Workspace& workspace)
    : workspace_(workspace), handle_(make_cudnn_handle()) {
  check(cudnnSetStream(handle_.get(), stream.get()), "cudnnSetStream");
}

void CudnnAttentions::prepare(const Attention& attention) {
  std::string key = key_of(attention);
  if (routes_.contains(key)) return;
  std::string reason = "it knows none";
  if (cudnnGetVersion() < kOldest)
    throw Error(fmt::format("cuDNN {} or newer expected, found {}; compile with attention = \"expanded\"", kOldest,
                            cudnnGetVersion()));
  try {
    auto graph = std::make_unique<AttentionGraph>(CudnnTarget{handle_.get()}, attention);
    for (CudnnDescriptor& configuration : graph->configurations()) try {
        CudnnPlan plan = graph->plan(std::move(configuration));
        workspace_.grow(graph->workspace_bytes(plan));
        routes_.emplace(std::move(key), Route{std::move(graph), std::move(plan)});
        return;
      } catch (const Error& error) {
        reason = error.what();
      }
  } catch (const Error& error) {
    reason = error.what();
  }
  throw Error(fmt::format("cuDNN has no engine for it ({}); compile with attention = \"expanded\"", reason));
}

void CudnnAttentions::run(const Attention& attention, const AttentionAddresses& addresses) {
  const auto route = routes_.find(key_of(attention));
  require(route != routes_.end(), "attention: not prepared");
  route->second.graph->run(route->second.plan, addresses, workspace_.data());
}

int64_t CudnnAttentions::workspace_bytes() const {
  int64_t bytes = 0;
  for (const auto& [key, route] : routes_) bytes = std::max(bytes, route.graph->workspace_bytes(route.plan));
  return bytes;
}

}  // namespace halfstep
