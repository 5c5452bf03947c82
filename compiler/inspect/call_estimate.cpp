#include "compiler/inspect/call_estimate.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"

namespace halfstep {
namespace {

bool computes_low(const Step& step) {
  if (const auto* gemm = std::get_if<Gemm>(&step.call)) return is_low(gemm->operand);
  if (const auto* convolution = std::get_if<Convolution>(&step.call)) return is_low(convolution->operand);
  if (const auto* recurrent = std::get_if<Recurrent>(&step.call)) return is_low(recurrent->operand);
  const auto* attention = std::get_if<Attention>(&step.call);
  return attention != nullptr && is_low(attention->operand);
}

}  // namespace

std::string_view name(CallEstimate::Bound bound) {
  switch (bound) {
    case CallEstimate::launch:
      return "launch";
    case CallEstimate::traffic:
      return "bytes";
    case CallEstimate::operations:
      return "flops";
  }
  return "";
}

CallEstimate estimate_call(const Step& step, const Machine& machine) {
  const CallCost all = cost(step);
  const CallWork work{static_cast<double>(all.bytes), all.flops, computes_low(step) ? all.flops : 0};
  const std::pair<double, CallEstimate::Bound> limits[] = {
      {machine.launch_seconds, CallEstimate::launch},
      {work.bytes / machine.bytes_per_second, CallEstimate::traffic},
      {computing_seconds(work, machine), CallEstimate::operations}};
  const auto longest = std::ranges::max_element(limits, {}, [](const auto& limit) { return limit.first; });
  return {longest->second, call_microseconds(work, machine)};
}

std::vector<CallGroup> compare_with_estimate(const Program& program, std::span<const StepTime> times,
                                             const Machine& machine) {
  require(times.size() == program.steps.size(), "a time for each call of the program");
  std::map<std::pair<std::string, std::string>, CallGroup> groups;
  for (size_t i = 0; i < times.size(); ++i) {
    const CallEstimate estimate = estimate_call(program.steps[i], machine);
    CallGroup& group = groups[{times[i].call, times[i].origin}];
    group.call = times[i].call, group.origin = times[i].origin, group.bound = estimate.bound;
    ++group.calls, group.microseconds += times[i].microseconds, group.predicted += estimate.microseconds;
  }
  std::vector<CallGroup> result;
  for (auto& [key, group] : groups) result.push_back(std::move(group));
  std::ranges::stable_sort(result, std::greater(), [](const CallGroup& g) { return g.microseconds - g.predicted; });
  return result;
}

}  // namespace halfstep
