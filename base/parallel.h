// Work on independent stretches of a long range, on all processors, by threads that end with it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#include "base/processors.h"

namespace halfstep {

// Calls body(begin, end) for stretches that cover [0, count), of at least `shortest` where there are several: what is
// worth a thread, which takes some 50 us to start. The body must not throw.
template <typename Body>
void parallel_stretches(int64_t count, const Body& body, int64_t shortest = 1 << 16) {
  const int64_t threads = std::clamp<int64_t>(count / std::max<int64_t>(shortest, 1), 1, usable_processors());
  std::vector<std::jthread> others;
  for (int64_t i = 1; i < threads; ++i) try {
      others.emplace_back([&body, begin = count * i / threads, end = count * (i + 1) / threads] { body(begin, end); });
    } catch (const std::system_error&) {  // no more threads for this user
      body(count * i / threads, count);
      break;
    }
  body(int64_t{0}, count / threads);
}

}  // namespace halfstep
