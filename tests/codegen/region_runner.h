// Compiles regions for the host and runs them: leaves "0", "1", ... in, outputs in order out.
#pragma once

#include <dlfcn.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "codegen/emit/module.h"
#include "codegen/kernel/schedule.h"

namespace halfstep {

class LoadedKernels {
 public:
  explicit LoadedKernels(const std::string& shared_object) {
    const std::string path = directory_.path() / "kernels.so";
    std::ofstream(path, std::ios::binary) << shared_object;
    handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle_) throw Error(dlerror());
  }
  ~LoadedKernels() { dlclose(handle_); }
  LoadedKernels(const LoadedKernels&) = delete;
  LoadedKernels& operator=(const LoadedKernels&) = delete;

  using Function = void (*)(void* const* arguments, int64_t begin, int64_t end);
  Function find(const std::string& name) const {
    void* symbol = dlsym(handle_, name.c_str());
    if (!symbol) throw Error("no kernel named '" + name + "'");
    return reinterpret_cast<Function>(symbol);
  }

 private:
  TemporaryDirectory directory_;
  void* handle_ = nullptr;
};

// Memory with canaries: kernels must not write beside their tensors.
class GuardedBytes {
 public:
  explicit GuardedBytes(int64_t bytes) : size_(static_cast<size_t>(bytes)), data_(size_ + 2 * kGuard, kPattern) {}
  void* data() {
    auto address = reinterpret_cast<uintptr_t>(data_.data()) + kGuard / 2;
    return reinterpret_cast<void*>(address / 64 * 64);
  }
  bool intact() {
    const auto* begin = static_cast<const std::byte*>(data());
    for (const std::byte* p = data_.data(); p != data_.data() + data_.size(); ++p)
      if ((p < begin || p >= begin + size_) && *p != kPattern) return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr std::byte kPattern{0xA5};
  size_t size_;
  std::vector<std::byte> data_;
};

class RegionRunner {
 public:
  explicit RegionRunner(Graph region, KernelTarget target = {DeviceKind::cpu, host_cpu()})
      : region_(std::move(region)) {
    KernelModule module(std::move(target));
    emitted_ = module.emit(region_);
    kernels_ = std::make_unique<LoadedKernels>(module.finish());
  }

  const Graph& region() const { return region_; }
  const EmittedRegion& emitted() const { return emitted_; }

  // Runs every launch in `pieces` ranges of units, the last one first.
  std::vector<Tensor> run(const NamedTensors& leaves, int64_t pieces = 1) const {
    std::vector<GuardedBytes> operands, outputs, partials;
    for (int32_t i = 0; leaves.count(std::to_string(i)); ++i) {
      const Tensor& t = leaves.at(std::to_string(i));
      std::copy(t.data.begin(), t.data.end(),
                static_cast<std::byte*>(operands.emplace_back(t.type.byte_count()).data()));
    }
    for (const NamedValue& o : region_.outputs()) outputs.emplace_back(region_.type(o.value).byte_count());
    for (int64_t bytes : emitted_.partial_bytes) partials.emplace_back(bytes);
    if (const auto over = operand_written_over(region_)) {
      const Tensor& t = leaves.at(std::to_string(*over));
      std::copy(t.data.begin(), t.data.end(), static_cast<std::byte*>(outputs[0].data()));
    }
    for (const EmittedLaunch& launch : emitted_.launches) {
      std::vector<void*> arguments;
      for (const EmittedArgument& a : launch.arguments) {
        auto& list = a.kind == EmittedArgument::Kind::operand  ? operands
                     : a.kind == EmittedArgument::Kind::output ? outputs
                                                               : partials;
        arguments.push_back(list.at(static_cast<size_t>(a.number)).data());
      }
      const auto function = kernels_->find(launch.kernel);
      for (int64_t p = pieces; p-- > 0;)
        function(arguments.data(), launch.units * p / pieces, launch.units * (p + 1) / pieces);
    }
    std::vector<Tensor> results;
    for (size_t i = 0; i < outputs.size(); ++i) {
      Tensor& t = results.emplace_back(region_.type(region_.outputs()[i].value));
      const auto* from = static_cast<const std::byte*>(outputs[i].data());
      std::copy(from, from + t.data.size(), t.data.begin());
    }
    for (auto* list : {&operands, &outputs, &partials})
      for (GuardedBytes& g : *list)
        if (!g.intact()) throw Error("a kernel wrote outside its tensors");
    return results;
  }

 private:
  Graph region_;
  EmittedRegion emitted_;
  std::unique_ptr<LoadedKernels> kernels_;
};

}  // namespace halfstep
