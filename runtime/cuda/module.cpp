#include "runtime/cuda/module.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/processors.h"
#include "program/gpu_code.h"
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

std::vector<std::string> parts_of(const std::string& ptx) {
  const size_t cores = static_cast<size_t>(usable_processors());
  return split_kernels(ptx, std::min(cores, 1 + ptx.size() / kBytesWorthAThread));
}

// work(0), work(1), ... at once, on the current device. Throws what the first of them threw.
void on_threads(size_t count, const std::function<void(size_t)>& work) {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  std::vector<std::exception_ptr> failures(count);
  const auto guarded = [&](size_t i) {
    try {
      check(cudaSetDevice(device), "cudaSetDevice");
      work(i);
    } catch (...) {
      failures[i] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < count; ++i) threads.emplace_back(guarded, i);
    if (count > 0) guarded(0);
  }
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

// PTX to machine code for the current device, by the driver.
std::string assemble(const std::string& ptx, const CudaDriver& driver) {
  std::vector<char> log(16384);
  CUjit_option names[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
  struct Link {
    CUlinkState state = nullptr;
    decltype(cuLinkDestroy)* destroy = driver_function<decltype(cuLinkDestroy)>("cuLinkDestroy");
    ~Link() {
      if (state) destroy(state);
    }
  } link;
  driver.check(driver_function<decltype(cuLinkCreate)>("cuLinkCreate")(2, names, values, &link.state), "cuLinkCreate");
  driver.check(driver_function<decltype(cuLinkAddData)>("cuLinkAddData")(link.state, CU_JIT_INPUT_PTX,
                                                                         const_cast<char*>(ptx.c_str()), ptx.size() + 1,
                                                                         "the compiled kernels", 0, nullptr, nullptr),
               "cuLinkAddData");
  void* code = nullptr;
  size_t bytes = 0;
  driver.check(driver_function<decltype(cuLinkComplete)>("cuLinkComplete")(link.state, &code, &bytes),
               "cuLinkComplete");
  return {static_cast<const char*>(code), bytes};
}

// Machine code that an earlier start kept; none: there is none, or not all of it.
std::vector<std::string> kept_code(ChoiceStore& choices, const std::string& call) {
  const std::string* const found = choices.find(call);
  if (!found) return {};
  size_t parts = 0;
  std::from_chars(found->data(), found->data() + found->size(), parts);
  std::vector<std::string> images;
  for (size_t i = 0; i < parts; ++i) {
    std::optional<std::string> image = choices.find_bytes(fmt::format("{} part {}", call, i));
    if (!image) return {};
    images.push_back(std::move(*image));
  }
  return images;
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
  resolve("cuFuncGetAttribute", function_attribute);
  resolve("cuFuncSetAttribute", set_function_attribute);
  resolve("cuOccupancyMaxActiveBlocksPerMultiprocessor", resident_blocks);
  resolve("cuGetErrorString", error_string);
}

void CudaDriver::check(CUresult status, const char* call) const {
  if (status == CUDA_SUCCESS) return;
  const char* text = nullptr;
  error_string(status, &text);
  throw Error(
      fmt::format("{} failed: {} (driver error {})", call, text ? text : "unknown error", static_cast<int>(status)));
}

CUmodule CudaModule::load(const std::string& image) const {
  std::vector<char> log(16384);
  CUjit_option names[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log.data(), reinterpret_cast<void*>(log.size())};
  CUmodule module = nullptr;
  const CUresult status = driver_.load_module(&module, image.c_str(), 2, names, values);
  std::string_view text(log.data(), std::ranges::find(log, '\0') - log.begin());
  while (text.ends_with('\n')) text.remove_suffix(1);
  if (status != CUDA_SUCCESS && !text.empty()) {
    throw Error(fmt::format("cuModuleLoadDataEx failed for the compiled kernels: {}", text));
  }
  driver_.check(status, "cuModuleLoadDataEx");
  return module;
}

CudaModule::CudaModule(const std::vector<std::string>& images) : modules_(images.size(), nullptr) {
  try {
    on_threads(images.size(), [&](size_t i) { modules_[i] = load(images[i]); });
  } catch (...) {
    unload();
    throw;
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

int64_t CudaModule::allow_shared(CUfunction kernel, int64_t block, int64_t wanted) const {
  if (wanted == 0) return 0;
  int device = 0, of_block = 0, of_processor = 0, reserved = 0, own = 0, blocks = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const auto ask = [&](cudaDeviceAttr attribute, int& value) {
    check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  };
  ask(cudaDevAttrMaxSharedMemoryPerBlockOptin, of_block);
  ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor, of_processor);
  ask(cudaDevAttrReservedSharedMemoryPerBlock, reserved);
  driver_.check(driver_.function_attribute(&own, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, kernel), "cuFuncGetAttribute");
  driver_.check(driver_.resident_blocks(&blocks, kernel, static_cast<int>(launch_size(block)), 0),
                "cuOccupancyMaxActiveBlocksPerMultiprocessor");
  const int share = of_processor / std::max(blocks, 1) - reserved;
  constexpr int kGranularity = 128;  // in which a processor hands it out
  const int room = (std::min(of_block, share) - own) / kGranularity * kGranularity;
  const int given = static_cast<int>(std::min<int64_t>(wanted, std::max(room, 0)));
  const auto set = [&](CUfunction_attribute attribute, int value) {
    driver_.check(driver_.set_function_attribute(kernel, attribute, value), "cuFuncSetAttribute");
  };
  set(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, given);
  set(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100);
  return given;
}

void CudaModule::launch(CUfunction kernel, const std::array<int64_t, 3>& grid, const std::array<int64_t, 3>& block,
                        int64_t shared, void** parameters, const CudaStream& stream) const {
  driver_.check(driver_.launch_kernel(kernel, launch_size(grid[0]), launch_size(grid[1]), launch_size(grid[2]),
                                      launch_size(block[0]), launch_size(block[1]), launch_size(block[2]),
                                      static_cast<unsigned>(shared), stream.get(), parameters, nullptr),
                "cuLaunchKernel");
}

std::unique_ptr<CudaModule> load_kernels(const CompiledModel& model, const CudaDevice& device, ChoiceStore& choices,
                                         std::vector<std::string>& remarks) {
  if (const std::string architecture = fitting_cubin(model, device.capability); !architecture.empty()) try {
      return std::make_unique<CudaModule>(std::vector<std::string>{model.cubins.at(architecture)});
    } catch (const Error& error) {
      remarks.push_back(fmt::format("the machine code for {} does not load, the PTX is compiled instead: {}",
                                    architecture, error.what()));
    }
  const std::string call = "kernels " + digest(model.kernels);
  if (const std::vector<std::string> images = kept_code(choices, call); !images.empty()) try {
      return std::make_unique<CudaModule>(images);
    } catch (const Error& error) {
      choices.refuse(call, error.what());
    }
  std::vector<std::string> images = parts_of(model.kernels);
  if (choices.keeps()) try {
      std::vector<std::string> code(images.size());
      const CudaDriver driver;
      on_threads(images.size(), [&](size_t i) { code[i] = assemble(images[i], driver); });
      auto loaded = std::make_unique<CudaModule>(code);
      for (size_t i = 0; i < code.size(); ++i) choices.keep_bytes(fmt::format("{} part {}", call, i), code[i]);
      choices.keep(call, std::to_string(code.size()));
      return loaded;
    } catch (const Error& error) {
      remarks.push_back(fmt::format("the kernels' machine code is not kept: {}", error.what()));
    }
  return std::make_unique<CudaModule>(images);
}

}  // namespace halfstep
