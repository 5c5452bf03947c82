// Page-aligned zeroed memory that takes no physical memory until it is touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace halfstep {

class HostMemory {
 public:
  HostMemory() = default;
  // Throws Error if the system refuses.
  explicit HostMemory(int64_t bytes);
  ~HostMemory();
  HostMemory(HostMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  HostMemory& operator=(HostMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() const { return data_; }
  int64_t size() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace halfstep
