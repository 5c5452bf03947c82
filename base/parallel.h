// Work on independent stretches of a long range, on all processors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace halfstep {

// Calls body(begin, end) for stretches that cover [0, count). The body must not throw.
template <typename Body>
void parallel_stretches(int64_t count, const Body& body) {
  constexpr int64_t kShortest = 1 << 16;  // elements worth a thread
  const int64_t processors = std::max<int64_t>(1, std::thread::hardware_concurrency());
  const int64_t threads = std::clamp<int64_t>(count / kShortest, 1, processors);
  std::vector<std::jthread> others;
  for (int64_t i = 1; i < threads; ++i)
    others.emplace_back([&body, begin = count * i / threads, end = count * (i + 1) / threads] { body(begin, end); });
  body(int64_t{0}, count / threads);
}

}  // namespace halfstep
