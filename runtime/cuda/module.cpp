#include "runtime/cuda/module.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <string_view>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/processors.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/ptx.h"

namespace halfstep {
namespace {

constexpr size_t kBytesWorthAThread = 16384;  // PTX; some milliseconds of compilation

template <typename Function>
void resolve(const char* name, Function& function) {
  function = driver_function<std::remove_pointer_t<Function>>(name);
}

unsigned launch_size(int64_t value) {
  if (value < 1 || value > std::numeric_limits<unsigned>::max()) {
    throw Error(fmt::format("launch dimension {} is out of range", value));
  }
  return static_cast<unsigned>(value);
}

}  // namespace

CudaDriver::CudaDriver() {
  resolve("cuModuleLoadDataEx", load_module);
  resolve("cuModuleUnload", unload_module);
  resolve("cuModuleGetFunction", find_function);
  resolve("cuLaunchKernel", launch_kernel);
  resolve("cuGetErrorString", error_string);
}

void CudaDriver::check(CUresult status, const char* call) const {
  if (status == CUDA_SUCCESS) return;
  const char* text = nullptr;
  error_string(status, &text);
  throw Error(
      fmt::format("{} failed: {} (driver error {})", call, text ? text : "unknown error", static_cast<int>(status)));
}

CUmodule CudaModule::compile(const std::string& ptx) const {
  std::vector<char> log(16384);
  CUjit_option names[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
  CUmodule module = nullptr;
  const CUresult status = driver_.load_module(&module, ptx.c_str(), 2, names, values);
  std::string_view text(log.data(), std::ranges::find(log, '\0') - log.begin());
  while (text.ends_with('\n')) text.remove_suffix(1);
  if (status != CUDA_SUCCESS && !text.empty()) {
    throw Error(fmt::format("cuModuleLoadDataEx failed for the compiled kernels: {}", text));
  }
  driver_.check(status, "cuModuleLoadDataEx");
  return module;
}

CudaModule::CudaModule(const std::string& ptx) {
  const size_t cores = static_cast<size_t>(usable_processors());
  const std::vector<std::string> parts = split_kernels(ptx, std::min(cores, 1 + ptx.size() / kBytesWorthAThread));
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  modules_.resize(parts.size(), nullptr);
  std::vector<std::exception_ptr> failures(parts.size());
  const auto compile_part = [&](size_t part) {
    try {
      check(cudaSetDevice(device), "cudaSetDevice");
      modules_[part] = compile(parts[part]);
    } catch (...) {
      failures[part] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t part = 1; part < parts.size(); ++part) threads.emplace_back(compile_part, part);
    compile_part(0);
  }
  for (const std::exception_ptr& failure : failures) {
    if (!failure) continue;
    unload();
    std::rethrow_exception(failure);
  }
}

CudaModule::~CudaModule() { unload(); }

void CudaModule::unload() {
  for (CUmodule module : modules_) {
    if (module) driver_.unload_module(module);
  }
}

CUfunction CudaModule::find(const std::string& kernel) const {
  for (CUmodule module : modules_) {
    CUfunction function = nullptr;
    const CUresult status = driver_.find_function(&function, module, kernel.c_str());
    if (status == CUDA_SUCCESS) return function;
    if (status != CUDA_ERROR_NOT_FOUND) driver_.check(status, "cuModuleGetFunction");
  }
  throw Error(fmt::format("the compiled kernels contain no '{}'", kernel));
}

void CudaModule::launch(CUfunction kernel, const std::array<int64_t, 3>& grid, const std::array<int64_t, 3>& block,
                        void** parameters, const CudaStream& stream) const {
  driver_.check(driver_.launch_kernel(kernel, launch_size(grid[0]), launch_size(grid[1]), launch_size(grid[2]),
                                      launch_size(block[0]), launch_size(block[1]), launch_size(block[2]), 0,
                                      stream.get(), parameters, nullptr),
                "cuLaunchKernel");
}

}  // namespace halfstep
