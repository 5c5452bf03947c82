// Which steps of a program run side by side, on streams ("lanes") of a device that each run their steps in order.
#pragma once

#include <cstddef>
#include <vector>

#include "program/program.h"

namespace halfstep {

struct LanePlan {
  std::vector<int> lane;  // by step
  // By step: the earlier steps of other lanes that it has to wait for. None that it comes after anyway, by its own lane
  // or by what it waits for.
  std::vector<std::vector<size_t>> waits;
};

struct LaneCounts {
  int all = 2;             // at least
  int with_libraries = 1;  // of the first ones, where library calls can run; at least 1
};

// Keeps every edge of `dependencies`: a step comes after each of them by the order of lanes and by waits. Large steps
// keep to two lanes, library calls to the first and others to the second; those that take microseconds go to any, since
// they feel what they wait for in vain. Attention and recurrent networks keep to the first lane whatever their size.
LanePlan plan_lanes(const Program& program, const std::vector<std::vector<size_t>>& dependencies, LaneCounts lanes);

// About how long a step runs on a large GPU, in microseconds: launch, memory and arithmetic.
double estimated_microseconds(const Step& step);

}  // namespace halfstep
