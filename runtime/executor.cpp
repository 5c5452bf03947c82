#include "runtime/executor.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "base/error.h"
#include "runtime/cuda_probe.h"

namespace halfstep {
namespace {

struct DeviceLibrary {
  const char* file;
  const char* device;
  const char* remedy;
};
constexpr DeviceLibrary kCuda{"libhalfstep_cuda.so", "cuda",
                              "install the CUDA libraries and driver, or run on the CPU instead (--device cpu)"};
constexpr DeviceLibrary kCpu{"libhalfstep_cpu.so", "cpu", "install oneDNN and an OpenMP runtime"};

// Beside the library or executable that holds this code; the system's search finds it elsewhere.
std::string path_of(const DeviceLibrary& library) {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&path_of), &info) == 0 || info.dli_fname == nullptr) return library.file;
  const std::filesystem::path beside = std::filesystem::path(info.dli_fname).parent_path() / library.file;
  std::error_code ignored;
  return std::filesystem::exists(beside, ignored) ? beside.string() : library.file;
}

// A function of a device's library, which is never closed: the executor's code and the libraries' threads live in it.
template <typename Function>
Function* device_function(const DeviceLibrary& device, const char* symbol) {
  void* const library = ::dlopen(path_of(device).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Error(fmt::format("device '{}': {}; {}", device.device, ::dlerror(), device.remedy));
  const auto function = reinterpret_cast<Function*>(::dlsym(library, symbol));
  if (function == nullptr) throw Error(fmt::format("{} is of another version: {}", device.file, ::dlerror()));
  return function;
}

// While it lives, GNU's OpenMP runtime would be loaded with a spin of about what a wake-up costs. Its own, of
// milliseconds, makes a step wait for threads whose core another process holds. A user's own choice stands, and so does
// that of a program that has loaded OpenMP already.
class BoundedSpin {
 public:
  BoundedSpin() : sets_(::getenv("OMP_WAIT_POLICY") == nullptr && ::getenv(kSpin) == nullptr) {
    if (sets_) ::setenv(kSpin, "2000", 0);  // some 50 us
  }
  ~BoundedSpin() {
    if (sets_) ::unsetenv(kSpin);
  }
  BoundedSpin(const BoundedSpin&) = delete;
  BoundedSpin& operator=(const BoundedSpin&) = delete;

 private:
  static constexpr const char* kSpin = "GOMP_SPINCOUNT";
  bool sets_;
};

template <typename Function>
Function* cpu_function(const char* symbol) {
  static std::mutex environment;
  const std::lock_guard lock(environment);
  const BoundedSpin spin;
  return device_function<Function>(kCpu, symbol);
}

// Our library brings cuBLASLt and cuDNN, which without the driver are of no use.
template <typename Function>
Function* cuda_function(const char* symbol) {
  if (::dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == nullptr)
    throw Error(fmt::format("device '{}': there is no CUDA driver: {}; {}", kCuda.device, ::dlerror(), kCuda.remedy));
  return device_function<Function>(kCuda, symbol);
}

}  // namespace

bool Executor::on_device(const void*) const { return false; }
void Executor::take_from_device(size_t, const void*, void*) { require(false, "the device has memory of its own"); }
void Executor::copy_from_device(std::span<std::byte>, const void*, void*) {
  require(false, "the device has memory of its own");
}
void Executor::copy_to_device(void*, std::span<const std::byte>, void*) {
  require(false, "the device has memory of its own");
}

std::unique_ptr<Executor> make_cpu_executor(CompiledModel model, const ExecutorOptions& options) {
  const auto make = cpu_function<decltype(halfstep_make_cpu_executor)>("halfstep_make_cpu_executor");
  return std::unique_ptr<Executor>(make(model, options));
}

std::string cpu_libraries() {
  std::string libraries;
  cpu_function<decltype(halfstep_cpu_libraries)>("halfstep_cpu_libraries")(libraries);
  return libraries;
}

std::unique_ptr<Executor> make_cuda_executor(CompiledModel model, const ExecutorOptions& options) {
  const auto make = cuda_function<decltype(halfstep_make_cuda_executor)>("halfstep_make_cuda_executor");
  return std::unique_ptr<Executor>(make(model, options));
}

CudaProbe probe_cuda(int device_index) {
  CudaProbe probe;
  try {
    cuda_function<decltype(halfstep_probe_cuda)>("halfstep_probe_cuda")(device_index, &probe);
  } catch (const Error& e) {
    probe.reason = e.what();
  }
  return probe;
}

std::unique_ptr<Executor> make_executor(CompiledModel model, const ExecutorOptions& options) {
  return model.device == DeviceKind::cuda ? make_cuda_executor(std::move(model), options)
                                          : make_cpu_executor(std::move(model), options);
}

}  // namespace halfstep
