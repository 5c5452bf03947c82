// Ranges for NVIDIA's profilers (NVTX, domain "halfstep"): the user's node names where a step's calls are prepared,
// captured and timed one by one, programs where they are fed, submitted and waited for. They are of the host, so that a
// capture does not see them. Without a profiler a range is its name and a test of a pointer; without the headers it is
// the name.
#pragma once

#include <cstdint>
#include <string>

namespace halfstep::nvtx {

// On this thread, for as long as it lives.
class Range {
 public:
  explicit Range(const std::string& name);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

// From `begin` to `end`, which another thread may call; the newest one alone.
class Span {
 public:
  Span() = default;
  ~Span() { end(); }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;
  void begin(const std::string& name);
  void end();

 private:
  uint64_t id_ = 0;
  bool open_ = false;
};

}  // namespace halfstep::nvtx
