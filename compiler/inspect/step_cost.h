// What a step costs, by the nodes that its calls compute: operations, traffic, and a time by a roofline.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "passes/fusion/fuse.h"
#include "program/program.h"

namespace halfstep {

// A call takes the longer of its traffic at `bytes_per_second` and its operations at the rate of their type, and
// `launch_seconds`. Attainable rates, not peaks.
struct Machine {
  std::string name;
  double bytes_per_second = 0;
  double low_rate = 0, full_rate = 0;  // operations a second
  double launch_seconds = 0;
};
Machine machine_of(DeviceKind device);
// Of a call with so many operations, some of them on operands of a low type.
struct CallWork {
  double bytes = 0, flops = 0, low_flops = 0;
};
double computing_seconds(const CallWork& work, const Machine& machine);  // its operations alone
double call_microseconds(const CallWork& work, const Machine& machine);

struct NodeCost {
  double flops = 0, low_flops = 0;  // the second: on operands of a low type
  double bytes = 0;                 // its share of what its calls read and write
  double microseconds = 0;
  int64_t kept_bytes = 0;  // of its values that the backward reads
};

struct StepCost {
  using Key = std::pair<std::string, Phase>;
  std::map<Key, NodeCost> nodes;  // by origin
  NodeCost total;
};

// Calls are shared among the nodes that they compute, by the elements that each of these computes. `kept_bytes` stay 0.
StepCost step_cost(const FusedCalls& calls, const Machine& machine);

// Bytes of the values that forward calls of a fused graph make and backward calls read, by what computes them.
std::map<StepCost::Key, int64_t> kept_bytes(const Graph& fused);

}  // namespace halfstep
