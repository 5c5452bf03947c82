// A program's steps on several streams of a device, as program/lanes.h plans them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "program/lanes.h"
#include "program/program.h"
#include "runtime/cuda/device.h"

namespace halfstep {

class Lanes {
 public:
  // `main` and others beside it, which have workspaces of `workspace_bytes` unless these are large: library calls then
  // keep to `main`, which must outlive it.
  Lanes(DeviceLane& main, int64_t workspace_bytes);

  LanePlan plan(const Program& program) const;
  // What the further lanes hold.
  int64_t workspace_bytes() const;

  using EnqueueStep = std::function<void(size_t step, const DeviceLane& lane)>;
  using EnqueueResults = std::function<void(const CudaStream& stream)>;
  // Everything is forked from `main` and joined to it, so that it can be captured there. `results` runs beside the
  // steps that follow the last one that writes an output.
  void enqueue(const Program& program, const LanePlan& plan, const EnqueueStep& step, const EnqueueResults& results);

 private:
  DeviceLane& at(int lane) { return lane == 0 ? main_ : further_[static_cast<size_t>(lane) - 1]; }

  DeviceLane& main_;
  LaneCounts counts_;
  std::deque<DeviceLane> further_;
  CudaStream results_;
};

}  // namespace halfstep
