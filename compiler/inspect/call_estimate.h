// What the calls of a compiled step should take at a machine's attainable rates, beside what they took.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/inspect/step_cost.h"
#include "program/program.h"
#include "runtime/executor.h"

namespace halfstep {

// The longer of its traffic and its operations, and its launch, as step_cost reckons; `bound` is the longest of the
// three.
struct CallEstimate {
  enum Bound : uint8_t { launch, traffic, operations } bound = launch;
  double microseconds = 0;
};
std::string_view name(CallEstimate::Bound bound);
CallEstimate estimate_call(const Step& step, const Machine& machine);

// Calls of one description and origin together.
struct CallGroup {
  std::string call, origin;
  int64_t calls = 0;
  CallEstimate::Bound bound = CallEstimate::launch;
  double microseconds = 0, predicted = 0;  // of all of them

  double share() const { return microseconds > 0 ? predicted / microseconds : 0; }
};
// `times` are those of the program's steps, in order; what loses most comes first.
std::vector<CallGroup> compare_with_estimate(const Program& program, std::span<const StepTime> times,
                                             const Machine& machine);

}  // namespace halfstep
