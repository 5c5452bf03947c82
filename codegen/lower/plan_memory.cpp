#include "codegen/lower/plan_memory.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/checked.h"

namespace halfstep {

MemoryPlan plan_memory(std::span<const Lifetime> lifetimes, int64_t alignment, int64_t apart) {
  MemoryPlan plan;
  plan.offsets.assign(lifetimes.size(), 0);
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
  int64_t all = 0;
  for (const Lifetime& life : lifetimes)
    all = std::min(round_up(life.bytes, alignment), std::numeric_limits<int64_t>::max() - all) + all;
  const bool overlap = all > apart;
  struct Placed {
    int first, last;
    int64_t begin, end;
  };
  std::vector<Placed> placed;  // by begin
  placed.reserve(lifetimes.size());
  for (size_t value : order) {
    const Lifetime& life = lifetimes[value];
    int64_t at = 0;
    for (const Placed& other : placed) {
      if (overlap && (other.last < life.first || life.last < other.first)) continue;
      if (at + life.bytes <= other.begin) break;
      at = std::max(at, other.end);
    }
    const Placed mine{life.first, life.last, at, round_up(at + life.bytes, alignment)};
    placed.insert(std::ranges::upper_bound(placed, at, {}, &Placed::begin), mine);
    plan.offsets[value] = at;
    plan.bytes = std::max(plan.bytes, at + life.bytes);
  }
  int last = 0;
  for (const Lifetime& life : lifetimes) last = std::max(last, life.last);
  std::vector<int64_t> change(static_cast<size_t>(last) + 2, 0);
  for (const Lifetime& life : lifetimes) {
    change[static_cast<size_t>(life.first)] += round_up(life.bytes, alignment);
    change[static_cast<size_t>(life.last) + 1] -= round_up(life.bytes, alignment);
  }
  int64_t alive = 0;
  for (int64_t c : change) plan.floor = std::max(plan.floor, alive += c);
  plan.bytes = round_up(plan.bytes, alignment);
  return plan;
}

}  // namespace halfstep
