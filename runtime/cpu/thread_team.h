// The threads of a CPU step.
#pragma once

#include <cstdint>
#include <functional>

namespace halfstep {

// oneDNN's threads and ours are the same OpenMP team: its idle threads spin for a while after every call, and a second
// pool would have to share the cores with them. Used where signals are blocked.
class ThreadTeam {
 public:
  explicit ThreadTeam(int threads);  // 0: usable_processors()
  int size() const { return size_; }

  // Gives this team's size to the libraries called from this thread, and its mask of signals to the others.
  void enter() const;
  // Covers [0, count) with at most one range a thread and waits. Serial where no two ranges reach `grain`.
  void run(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body) const;

 private:
  int size_;
};

}  // namespace halfstep
