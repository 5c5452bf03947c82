// What the GPU tests share: the fixture that skips without a GPU, and hand-written models.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "runtime/executor.h"

namespace halfstep {

// The driver's word, not the executor's: a broken executor must not make these tests skip.
inline int driver_device_count() {
  const int nodes = std::filesystem::exists("/dev/nvidia0") ? 1 : 0;
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (!driver) return nodes;
  const auto initialise = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto count_devices = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  int count = 0;
  if (!initialise || !count_devices || initialise(0) != 0 || count_devices(&count) != 0) return nodes;
  return count;
}

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (driver_device_count() == 0) GTEST_SKIP() << "no GPU";
  }
};

// A model of one program "step", put together buffer by buffer.
class ModelBuilder {
 public:
  explicit ModelBuilder(std::string ptx = {}) {
    model_.device = DeviceKind::cuda;
    model_.architecture = "sm_80";
    model_.kernels = std::move(ptx);
    model_.programs.emplace_back().name = "step";
  }
  Ref buffer(BufferKind kind, const std::string& name, TensorType type) {
    auto& buffers = model_.programs.back().buffers;
    buffers.push_back({name, kind, std::move(type)});
    return {static_cast<int32_t>(buffers.size() - 1), 0};
  }
  Ref state(const std::string& name, const Tensor& initial) {
    model_.state[name] = initial;
    return buffer(BufferKind::state, name, initial.type);
  }
  template <typename Call>
  ModelBuilder& step(Call call) {
    model_.programs.back().steps.push_back({std::move(call), "the node"});
    return *this;
  }
  ModelBuilder& next_program(const std::string& name) {
    model_.programs.emplace_back().name = name;
    return *this;
  }
  CompiledModel& model() { return model_; }
  std::unique_ptr<Executor> make(const ExecutorOptions& options = {}) { return make_cuda_executor(model_, options); }

 private:
  CompiledModel model_;
};

inline StepResult run_step(Executor& executor, int program = 0) {
  executor.begin_step(program);
  executor.submit();
  return executor.poll(Wait::yes).value();
}

}  // namespace halfstep
