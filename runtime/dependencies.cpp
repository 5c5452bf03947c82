// Which steps of a program must wait for which, from the memory they touch.
#include <algorithm>

#include "runtime/program_check.h"

namespace halfstep {
namespace {

bool overlap(const MemoryUse& a, const MemoryUse& b) {
  return a.ref.buffer == b.ref.buffer && a.ref.offset < b.ref.offset + b.bytes && b.ref.offset < a.ref.offset + a.bytes;
}

bool conflict(const std::vector<MemoryUse>& later, const std::vector<MemoryUse>& earlier) {
  for (const MemoryUse& a : later)
    for (const MemoryUse& b : earlier)
      if ((a.access == Access::write || b.access == Access::write) && overlap(a, b)) return true;
  return false;
}

}  // namespace

std::vector<std::vector<size_t>> dependencies(const Program& program) {
  const size_t count = program.steps.size();
  std::vector<std::vector<MemoryUse>> uses;
  for (const Step& step : program.steps) uses.push_back(memory_uses(program, step));
  std::vector<std::vector<size_t>> result(count);
  std::vector<std::vector<bool>> after(count);  // after[i][j]: step i comes after step j already
  for (size_t i = 0; i < count; ++i) {
    after[i].assign(count, false);
    for (size_t j = i; j-- > 0;) {
      if (after[i][j] || !conflict(uses[i], uses[j])) continue;
      result[i].push_back(j);
      after[i][j] = true;
      for (size_t k = 0; k < j; ++k)
        if (after[j][k]) after[i][k] = true;
    }
  }
  return result;
}

}  // namespace halfstep
