#include "runtime/cpu/host_memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace halfstep {
namespace {

constexpr int64_t kHugePage = 2 << 20;

}  // namespace

HostMemory::HostMemory(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* const place =
      ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) throw Error(fmt::format("cannot allocate {} bytes: {}", bytes, std::strerror(errno)));
  data_ = static_cast<std::byte*>(place);
  if (bytes >= kHugePage) ::madvise(place, static_cast<size_t>(bytes), MADV_HUGEPAGE);
}

HostMemory::~HostMemory() {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(bytes_));
}

}  // namespace halfstep
