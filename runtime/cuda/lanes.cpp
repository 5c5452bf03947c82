#include "runtime/cuda/lanes.h"

#include <algorithm>

#include "program/program_check.h"
#include "runtime/cuda/check.h"

namespace halfstep {
namespace {

constexpr int kLanes = 4;
constexpr int64_t kLargeWorkspace = int64_t{4} << 20;

void wait_for(const CudaStream& stream, const CudaEvent& event) {
  check(cudaStreamWaitEvent(stream.get(), event.get(), 0), "cudaStreamWaitEvent");
}

bool writes_an_output(const Program& program, const Step& step) {
  return std::ranges::any_of(memory_uses(program, step), [&](const MemoryUse& use) {
    return use.access == Access::write &&
           program.buffers[static_cast<size_t>(use.ref.buffer)].kind == BufferKind::output;
  });
}

}  // namespace

Lanes::Lanes(DeviceLane& main, int64_t workspace_bytes)
    : main_(main), counts_{kLanes, workspace_bytes <= kLargeWorkspace ? kLanes : 1} {
  for (int i = 1; i < kLanes; ++i) {
    DeviceLane& lane = further_.emplace_back();
    if (counts_.with_libraries > 1) lane.workspace.resize(workspace_bytes);
  }
}

LanePlan Lanes::plan(const Program& program) const { return plan_lanes(program, dependencies(program), counts_); }

int64_t Lanes::workspace_bytes() const {
  int64_t bytes = 0;
  for (const DeviceLane& lane : further_) bytes += lane.workspace.size();
  return bytes;
}

void Lanes::enqueue(const Program& program, const LanePlan& plan, const EnqueueStep& step,
                    const EnqueueResults& results) {
  const size_t count = program.steps.size();
  std::vector<CudaEvent> done;  // of each step
  for (size_t i = 0; i < count; ++i) done.emplace_back(EventKind::ordering);
  const CudaEvent fork(EventKind::ordering);
  fork.record(main_.stream);
  for (const DeviceLane& lane : further_) wait_for(lane.stream, fork);
  wait_for(results_, fork);
  for (size_t i = 0; i < count; ++i) {
    const DeviceLane& lane = at(plan.lane[i]);
    for (const size_t earlier : plan.waits[i]) wait_for(lane.stream, done[earlier]);
    step(i, lane);
    done[i].record(lane.stream);
  }
  for (size_t i = 0; i < count; ++i)
    if (writes_an_output(program, program.steps[i])) wait_for(results_, done[i]);
  results(results_);
  const auto join = [&](const CudaStream& stream) {
    const CudaEvent end(EventKind::ordering);
    end.record(stream);
    wait_for(main_.stream, end);
  };
  for (const DeviceLane& lane : further_) join(lane.stream);
  join(results_);
}

}  // namespace halfstep
