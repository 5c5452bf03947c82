#include "runtime/executor.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "runtime/cuda_probe.h"

namespace halfstep {
namespace {

constexpr const char* kCudaLibrary = "libhalfstep_cuda.so";

// Beside the library or executable that holds this code; the system's search finds it elsewhere.
std::string cuda_library_path() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&cuda_library_path), &info) == 0 || info.dli_fname == nullptr)
    return kCudaLibrary;
  const std::filesystem::path beside = std::filesystem::path(info.dli_fname).parent_path() / kCudaLibrary;
  std::error_code ignored;
  return std::filesystem::exists(beside, ignored) ? beside.string() : kCudaLibrary;
}

// A function of the CUDA library, which is never closed: the executor's code and the CUDA libraries' threads live in
// it.
template <typename Function>
Function* cuda_function(const char* symbol) {
  void* const library = ::dlopen(cuda_library_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(
        fmt::format("device 'cuda': {}; install the CUDA libraries and driver, or run on the CPU instead "
                    "(--device cpu)",
                    ::dlerror()));
  const auto function = reinterpret_cast<Function*>(::dlsym(library, symbol));
  if (function == nullptr) throw Error(fmt::format("{} is of another version: {}", kCudaLibrary, ::dlerror()));
  return function;
}

}  // namespace

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
