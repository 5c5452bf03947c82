#include "runtime/cuda/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/engine_choice.h"

namespace halfstep {
namespace {

// Since then engines clear what they accumulate into, and take -infinity for what is hidden.
constexpr size_t kOldest = 91000;

std::string key_of(const Attention& a) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {}{}", name(a.kind), a.batch, a.heads, a.key_heads, a.queries,
                     a.keys, a.depth, a.value_depth, a.scale, a.causal, a.deterministic, name(a.operand),
                     a.packed() ? " packed" : "");
}

}  // namespace

CudnnAttentions::CudnnAttentions(const CudaStream& stream, Workspace& workspace, ChoiceStore& choices)
    : stream_(stream), workspace_(workspace), choices_(choices), handle_(make_cudnn_handle()) {
  check(cudnnSetStream(handle_.get(), stream.get()), "cudnnSetStream");
}

CudnnAttentions::Route CudnnAttentions::build(const Attention& attention) {
  std::string reason = "it knows none";
  try {
    auto graph = std::make_unique<AttentionGraph>(CudnnTarget{handle_.get()}, attention);
    for (CudnnDescriptor& configuration : graph->configurations()) try {
        CudnnPlan plan = graph->plan(std::move(configuration));
        workspace_.grow(graph->workspace_bytes(plan));
        return {std::move(graph), std::move(plan)};
      } catch (const Error& error) {
        reason = error.what();
      }
  } catch (const Error& error) {
    reason = error.what();
  }
  throw Error(fmt::format("cuDNN has no engine for it ({}); compile with attention = \"expanded\"", reason));
}

// The plan as it was, with its machine code, or its engine compiled again.
CudnnAttentions::Route CudnnAttentions::restore(const Attention& attention, const AttentionAddresses& addresses,
                                                const std::string& choice) {
  auto graph = std::make_unique<AttentionGraph>(CudnnTarget{handle_.get()}, attention);
  const std::string plan_call = "plan of attention " + key_of(attention);
  if (const std::optional<std::string> bytes = choices_.find_bytes(plan_call)) try {
      CudnnPlan plan = deserialize_plan(handle_.get(), *bytes);
      workspace_.grow(graph->workspace_bytes(plan));
      graph->run(plan, addresses, workspace_.data());
      stream_.synchronize();
      return {std::move(graph), std::move(plan)};
    } catch (const Error& error) {
      choices_.refuse(plan_call, error.what());
    }
  const std::optional<EngineChoice> engine = parse_engine_choice(choice);
  if (!engine) throw Error("no engine and knobs");
  CudnnPlan plan = graph->plan(*engine);
  workspace_.grow(graph->workspace_bytes(plan));
  keep_bytes_of(plan, plan_call);
  return {std::move(graph), std::move(plan)};
}

void CudnnAttentions::keep_bytes_of(const CudnnPlan& plan, const std::string& call) {
  if (choices_.keeps()) try {
      choices_.keep_bytes(call, serialized(plan));
    } catch (const Error&) {  // an engine that has no such form is compiled at each start
    }
}

void CudnnAttentions::prepare(const Attention& attention, const AttentionAddresses& addresses) {
  const std::string key = key_of(attention), call = "attention " + key;
  if (routes_.contains(key)) return;
  if (cudnnGetVersion() < kOldest)
    throw Error(fmt::format("cuDNN {} or newer expected, found {}; compile with attention = \"expanded\"", kOldest,
                            cudnnGetVersion()));
  if (const std::string* const found = choices_.find(call)) try {
      routes_.emplace(key, restore(attention, addresses, std::string(*found)));
      return;
    } catch (const Error& error) {
      choices_.refuse(call, error.what());
    }
  const Route& route = routes_.emplace(key, build(attention)).first->second;
  try {
    choices_.keep(call, print(choice_of(route.plan.configuration)));
    keep_bytes_of(route.plan, "plan of " + call);
  } catch (const Error&) {  // an engine that does not say what it is is chosen at each start
  }
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
