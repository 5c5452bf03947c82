#include "runtime/cpu/thread_team.h"

#ifdef _OPENMP
#include <omp.h>
#else
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#endif

#include <algorithm>
#include <thread>

namespace halfstep {

ThreadTeam::ThreadTeam(int threads)
    : size_(threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {}

void ThreadTeam::enter() const {
#ifdef _OPENMP
  omp_set_num_threads(size_);
#endif
}

void ThreadTeam::run(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) const {
  const int64_t parts = std::min<int64_t>(size_, count / std::max<int64_t>(grain, 1));
  if (parts <= 1) return body(0, count);
  // Always the whole team: OpenMP would end and start threads where the size changes.
  const auto part = [&](int64_t i) {
    if (i < parts) body(count * i / parts, count * (i + 1) / parts);
  };
#ifdef _OPENMP
#pragma omp parallel num_threads(size_)
  part(omp_get_thread_num());
#else
  tbb::task_arena(size_).execute([&] { tbb::parallel_for(0, size_, part, tbb::static_partitioner()); });
#endif
}

}  // namespace halfstep
