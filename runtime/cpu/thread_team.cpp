#include "runtime/cpu/thread_team.h"

#include <omp.h>

#include <algorithm>
#include <optional>

#include "base/processors.h"
#include "runtime/signals.h"

namespace halfstep {

ThreadTeam::ThreadTeam(int threads) : size_(threads > 0 ? threads : usable_processors()) {}

void ThreadTeam::enter() const {
  omp_set_num_threads(size_);
  // A program that uses OpenMP itself may have started the team without our mask of signals.
  thread_local int masked = 1;
  if (masked >= size_) return;
  masked = size_;
#pragma omp parallel num_threads(size_)
  {
    thread_local std::optional<SignalsBlocked> blocked;
    if (omp_get_thread_num() > 0 && !blocked) blocked.emplace();
  }
}

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
