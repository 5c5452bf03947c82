// Static memory plan: offsets in one arena for values with known sizes and lifetimes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace halfstep {

struct Lifetime {
  int64_t bytes = 0;
  int first = 0, last = 0;  // the step that writes it and the last one that touches it, inclusive
};

struct MemoryPlan {
  std::vector<int64_t> offsets;  // one for each lifetime, aligned
  int64_t bytes = 0;             // of the arena
  int64_t floor = 0;             // the largest sum of bytes alive in one step: no plan needs less
};

// Values alive in a common step never overlap. Largest first, each at the lowest offset that fits. Where all of them
// together need at most `apart` bytes, none overlap: nothing then waits for the readers of what was there before.
MemoryPlan plan_memory(std::span<const Lifetime> lifetimes, int64_t alignment, int64_t apart = 0);

}  // namespace halfstep
