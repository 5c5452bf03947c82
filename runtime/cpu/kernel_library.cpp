#include "runtime/cpu/kernel_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace halfstep {
namespace {

bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace

// A file in memory rather than in a temporary folder, which may be mounted without the right to execute.
KernelLibrary::KernelLibrary(const std::string& bytes) {
  if (bytes.empty()) return;
  file_ = ::memfd_create("halfstep-kernels", MFD_CLOEXEC);
  std::string problem;
  if (file_ < 0 || !write_all(file_, bytes)) {
    problem = std::strerror(errno);
  } else {
    handle_ = ::dlopen(fmt::format("/proc/self/fd/{}", file_).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) problem = ::dlerror();
  }
  if (problem.empty()) return;
  if (file_ >= 0) ::close(file_);
  throw Error("cannot load the step's kernels: " + problem);
}

KernelLibrary::~KernelLibrary() {
  if (handle_ != nullptr) ::dlclose(handle_);
  // Open until here: the loader takes an equal path for the same library.
  if (file_ >= 0) ::close(file_);
}

CpuKernel KernelLibrary::find(const std::string& name) const {
  void* const symbol = handle_ == nullptr ? nullptr : ::dlsym(handle_, name.c_str());
  if (symbol == nullptr) throw Error(fmt::format("the step's kernels do not hold '{}'", name));
  return reinterpret_cast<CpuKernel>(symbol);
}

}  // namespace halfstep
