// Which units of a graph (future kernels and library calls) wait for which, while kernels are merged. Every unit has a
// level above those of the units it reads, so that a search between two units stays between their levels.
#pragma once

#include <cstddef>
#include <vector>

namespace halfstep {

class KernelOrder {
 public:
  explicit KernelOrder(size_t units);

  // `unit` reads what `from` makes. All reads of `from` are known by then.
  void add_read(int unit, int from);
  // `unit` also needs `from` to be complete before it starts: the two are never one.
  void add_wait(int unit, int from);

  // Whether nothing that reads one of them is read by the other. Units with much between them count as dependent.
  bool can_merge(int a, int b) const;
  // `b` becomes part of `a`.
  void merge(int a, int b);

 private:
  int now(int unit) const;
  bool waits(int unit, int from) const;
  bool path_between(int from, int to) const;
  void raise(int unit);

  std::vector<std::vector<int>> readers_, waits_;
  std::vector<int> level_;
  mutable std::vector<int> merged_into_;  // a unit's merged one; itself
  mutable std::vector<int> seen_;         // the last search that came by
  mutable int search_ = 0;
};

}  // namespace halfstep
