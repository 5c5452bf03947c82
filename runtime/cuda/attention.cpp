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
const std::string kPlanOf = "plan of ";

std::string key_of(const Attention& a) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {}", name(a.kind), a.batch, a.heads, a.key_heads, a.queries,
                     a.keys, a.depth, a.value_depth, a.scale, a.causal, a.deterministic, name(a.operand));
}

}  // namespace

CudnnAttentions::CudnnAttentions(const CudaStream& stream, Workspace& workspace, ChoiceStore& choices)
    : workspace_(workspace), choices_(choices), handle_(make_cudnn_handle()) {
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
CudnnPlan CudnnAttentions::restore(const AttentionGraph& graph, const std::string& call, const std::string& choice) {
  if (const std::optional<std::string> bytes = choices_.find_bytes(kPlanOf + call)) try {
      return deserialize_plan(handle_.get(), *bytes);
    } catch (const Error& error) {
      choices_.refuse(kPlanOf + call, error.what());
    }
  const std::optional<EngineChoice> engine = parse_engine_choice(choice);
  if (!engine) throw Error("no engine and knobs");
  return graph.plan(*engine);
}

void CudnnAttentions::prepare(const Attention& attention) {
  std::string key = key_of(attention);
  if (routes_.contains(key)) return;
  if (cudnnGetVersion() < kOldest)
    throw Error(fmt::format("cuDNN {} or newer expected, found {}; compile with attention = \"expanded\"", kOldest,
                            cudnnGetVersion()));
  const std::string call = "attention " + key;
  if (const std::string* const found = choices_.find(call)) try {
      auto graph = std::make_unique<AttentionGraph>(CudnnTarget{handle_.get()}, attention);
      CudnnPlan plan = restore(*graph, call, std::string(*found));
      workspace_.grow(graph->workspace_bytes(plan));
      routes_.emplace(std::move(key), Route{std::move(graph), std::move(plan)});
      return;
    } catch (const Error& error) {
      choices_.refuse(call, error.what());
    }
  const Route& route = routes_.emplace(std::move(key), build(attention)).first->second;
  if (!choices_.keeps()) return;
  choices_.keep(call, print(choice_of(route.plan.configuration)));
  try {
    choices_.keep_bytes(kPlanOf + call, serialized(route.plan));
  } catch (const Error&) {  // not every engine has such a form
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
