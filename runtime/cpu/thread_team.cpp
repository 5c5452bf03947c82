#include "runtime/cpu/thread_team.h"

#include <omp.h>

#include <algorithm>
#include <thread>

namespace halfstep {

ThreadTeam::ThreadTeam(int threads)
    : size_(threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {}

void ThreadTeam::enter() const { omp_set_num_threads(size_); }

void ThreadTeam::run(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) const {
  const int64_t parts = std::min<int64_t>(size_, count / std::max<int64_t>(grain, 1));
  if (parts <= 1) return body(0, count);
  // Always the whole team: OpenMP would end and start threads where the size changes.
  const auto part = [&](int64_t i) {
    if (i < parts) body(count * i / parts, count * (i + 1) / parts);
  };
#pragma omp parallel num_threads(size_)
  part(omp_get_thread_num());
}

}  // namespace halfstep
