#include "program/lanes.h"

#include <algorithm>
#include <cstdint>
#include <variant>

#include "base/error.h"

namespace halfstep {
namespace {

constexpr double kLargeMicroseconds = 20;  // fills the device, so that nothing beside it is gained
constexpr int64_t kNone = -1;

// The lanes from `first` on, `count` of them, where a step may run.
struct Choice {
  int first = 0, count = 1;
};

Choice choice_of(const Step& step, LaneCounts lanes) {
  const bool one_stream = std::holds_alternative<Attention>(step.call) || std::holds_alternative<Recurrent>(step.call);
  const bool is_large = one_stream || estimated_microseconds(step) >= kLargeMicroseconds;
  if (is_library(step.call)) return {0, is_large ? 1 : lanes.with_libraries};
  return is_large ? Choice{1, 1} : Choice{0, lanes.all};
}

// Of each lane the last step that some step comes after.
using Clock = std::vector<int64_t>;

void join(Clock& clock, const Clock& other) {
  for (size_t lane = 0; lane < clock.size(); ++lane) clock[lane] = std::max(clock[lane], other[lane]);
}

}  // namespace

double estimated_microseconds(const Step& step) {
  constexpr double kLaunch = 1.5, kBytes = 3e6, kFlops = 3e8;  // a microsecond's worth
  const CallCost work = cost(step);
  return kLaunch + std::max(static_cast<double>(work.bytes) / kBytes, work.flops / kFlops);
}

LanePlan plan_lanes(const Program& program, const std::vector<std::vector<size_t>>& dependencies, LaneCounts lanes) {
  require(lanes.all >= 2 && lanes.with_libraries >= 1 && lanes.with_libraries <= lanes.all, "two lanes at least");
  const size_t count = program.steps.size();
  // The longest way from each step to the end, and the dependent step on it: the heir of the step's lane.
  std::vector<double> to_end(count, 0);
  std::vector<size_t> heir(count, count);
  for (size_t i = count; i-- > 0;) {
    to_end[i] += estimated_microseconds(program.steps[i]);
    for (size_t d : dependencies[i])
      if (to_end[i] > to_end[d]) to_end[d] = to_end[i], heir[d] = i;
  }

  LanePlan plan{std::vector<int>(count, 0), std::vector<std::vector<size_t>>(count)};
  std::vector<int64_t> last(static_cast<size_t>(lanes.all), kNone);  // of each lane
  std::vector<Clock> clocks(count);
  for (size_t i = 0; i < count; ++i) {
    Clock before(static_cast<size_t>(lanes.all), kNone);
    for (size_t d : dependencies[i]) join(before, clocks[d]);
    const auto rank = [&](int lane) {  // the least is taken
      const int64_t end = last[static_cast<size_t>(lane)];
      if (end == kNone) return int64_t{2};
      const bool ended = before[static_cast<size_t>(lane)] >= end;
      const size_t next = heir[static_cast<size_t>(end)];
      if (ended && next == i) return int64_t{0};
      if (ended && next < i) return int64_t{1};  // nobody else wants it
      // Where each lane has work that this step need not wait for, behind the oldest.
      return ended ? int64_t{3} : int64_t{4} + end;
    };
    const Choice choice = choice_of(program.steps[i], lanes);
    int lane = choice.first;
    for (int other = lane + 1; other < choice.first + choice.count; ++other)
      if (rank(other) < rank(lane)) lane = other;
    const size_t mine = static_cast<size_t>(lane);
    plan.lane[i] = lane;
    Clock& clock = clocks[i];
    clock =
        last[mine] == kNone ? Clock(static_cast<size_t>(lanes.all), kNone) : clocks[static_cast<size_t>(last[mine])];
    for (size_t d : dependencies[i]) {  // latest first
      if (clock[static_cast<size_t>(plan.lane[d])] >= static_cast<int64_t>(d)) continue;
      plan.waits[i].push_back(d);
      join(clock, clocks[d]);
    }
    clock[mine] = last[mine] = static_cast<int64_t>(i);
  }
  return plan;
}

}  // namespace halfstep
