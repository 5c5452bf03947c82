#include "passes/fusion/kernel_order.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace halfstep {

KernelOrder::KernelOrder(size_t units)
    : readers_(units), waits_(units), level_(units, 0), merged_into_(units), seen_(units, 0) {
  std::iota(merged_into_.begin(), merged_into_.end(), 0);
}

int KernelOrder::now(int unit) const {
  while (merged_into_[static_cast<size_t>(unit)] != unit) {
    int& next = merged_into_[static_cast<size_t>(unit)];
    next = merged_into_[static_cast<size_t>(next)];
    unit = next;
  }
  return unit;
}

void KernelOrder::add_read(int unit, int from) {
  if (unit == from) return;
  std::vector<int>& readers = readers_[static_cast<size_t>(from)];
  if (readers.empty() || readers.back() != unit) readers.push_back(unit);
  int& level = level_[static_cast<size_t>(unit)];
  level = std::max(level, level_[static_cast<size_t>(from)] + 1);
}

void KernelOrder::add_wait(int unit, int from) {
  add_read(unit, from);
  waits_[static_cast<size_t>(unit)].push_back(from);
}

bool KernelOrder::waits(int unit, int from) const {
  return std::ranges::any_of(waits_[static_cast<size_t>(unit)], [&](int w) { return now(w) == from; });
}

bool KernelOrder::path_between(int from, int to) const {
  constexpr int kFarthest = 1000;  // units looked at
  const int top = level_[static_cast<size_t>(to)];
  int looked_at = 0;
  std::vector<int> stack;
  ++search_;
  const auto visit = [&](int unit) {
    int& seen = seen_[static_cast<size_t>(unit)];
    if (level_[static_cast<size_t>(unit)] >= top || std::exchange(seen, search_) == search_) return;
    stack.push_back(unit);
  };
  for (int reader : readers_[static_cast<size_t>(from)])
    if (now(reader) != to) visit(now(reader));
  while (!stack.empty()) {
    const int unit = stack.back();
    stack.pop_back();
    if (++looked_at > kFarthest) return true;
    for (int reader : readers_[static_cast<size_t>(unit)]) {
      if (now(reader) == to) return true;
      visit(now(reader));
    }
  }
  return false;
}

bool KernelOrder::can_merge(int a, int b) const {
  a = now(a), b = now(b);
  if (level_[static_cast<size_t>(a)] > level_[static_cast<size_t>(b)]) std::swap(a, b);
  return !waits(b, a) && !path_between(a, b);
}

void KernelOrder::merge(int a, int b) {
  merged_into_[static_cast<size_t>(b)] = a;
  level_[static_cast<size_t>(a)] = std::max(level_[static_cast<size_t>(a)], level_[static_cast<size_t>(b)]);
  for (auto* lists : {&readers_, &waits_}) {
    std::vector<int>&to = (*lists)[static_cast<size_t>(a)], &from = (*lists)[static_cast<size_t>(b)];
    to.insert(to.end(), from.begin(), from.end());
    from.clear();
  }
  std::vector<int>& readers = readers_[static_cast<size_t>(a)];
  for (int& reader : readers) reader = now(reader);
  std::erase(readers, a);
  std::ranges::sort(readers);
  readers.erase(std::unique(readers.begin(), readers.end()), readers.end());
  raise(a);
}

// Puts what reads `unit` above it again.
void KernelOrder::raise(int unit) {
  std::vector<int> stack{unit};
  while (!stack.empty()) {
    const int at = stack.back();
    stack.pop_back();
    for (int reader : readers_[static_cast<size_t>(at)]) {
      reader = now(reader);
      int& level = level_[static_cast<size_t>(reader)];
      if (reader == at || level > level_[static_cast<size_t>(at)]) continue;
      level = level_[static_cast<size_t>(at)] + 1;
      stack.push_back(reader);
    }
  }
}

}  // namespace halfstep
