#include "runtime/cpu/cpu_call.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace halfstep {
namespace {

// Below this much traffic a range costs less than waking a thread.
constexpr double kBytesPerRange = 32 << 10;

class KernelCall final : public CpuCall {
 public:
  KernelCall(const KernelLaunch& launch, const AddressOf& address, CpuKernel kernel, const ThreadTeam& team)
      : kernel_(kernel), units_(launch.units), team_(team) {
    for (const Ref& ref : launch.arguments) arguments_.push_back(address(ref));
    const double units_per_range = kBytesPerRange * static_cast<double>(units_) / std::max(1.0, 1.0 * launch.bytes);
    grain_ = static_cast<int64_t>(std::clamp(units_per_range, 1.0, static_cast<double>(units_)));
  }

  void run() override {
    team_.run(units_, grain_, [this](int64_t begin, int64_t end) { kernel_(arguments_.data(), begin, end); });
  }

 private:
  CpuKernel kernel_;
  std::vector<void*> arguments_;
  int64_t units_, grain_ = 1;
  const ThreadTeam& team_;
};

class CopyCall final : public CpuCall {
 public:
  CopyCall(const Copy& copy, const AddressOf& address)
      : from_(address(copy.from)), to_(address(copy.to)), bytes_(static_cast<size_t>(copy.bytes)) {}

  void run() override { std::memcpy(to_, from_, bytes_); }

 private:
  const std::byte* from_;
  std::byte* to_;
  size_t bytes_;
};

}  // namespace

std::unique_ptr<CpuCall> make_kernel_call(const KernelLaunch& launch, const AddressOf& address,
                                          const KernelLibrary& kernels, const ThreadTeam& team) {
  return std::make_unique<KernelCall>(launch, address, kernels.find(launch.kernel), team);
}

std::unique_ptr<CpuCall> make_copy_call(const Copy& copy, const AddressOf& address) {
  return std::make_unique<CopyCall>(copy, address);
}

}  // namespace halfstep
