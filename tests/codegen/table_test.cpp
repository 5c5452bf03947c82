// Every op with a kernel, compiled for x86-64-v3 and for the CPU at hand, against the interpreter in f32, f16 and bf16.
#include <algorithm>

#include "codegen/target/target.h"
#include "ir/op.h"
#include "tests/codegen/compare.h"
#include "tests/op_samples.h"

namespace halfstep {
namespace {

bool has_kernel(const Op& op) {
  return op.kernel == KernelKind::pointwise || op.kernel == KernelKind::movement ||
         op.kernel == KernelKind::reduction || op.kernel == KernelKind::window || op.kernel == KernelKind::random;
}

// What LLVM makes of a kernel depends on how wide the target's vectors are.
class KernelTable : public testing::TestWithParam<std::string> {};

TEST_P(KernelTable, EveryOpMatchesTheInterpreter) {
  const std::string cpu = GetParam() == "host" ? host_cpu() : GetParam();
  if (!__builtin_cpu_supports("x86-64-v3")) GTEST_SKIP() << "this CPU (" << host_cpu() << ") is below x86-64-v3";
  for (const char* type : {"f32", "f16", "bf16"})
    for (const OpSample& sample : op_samples()) {
      if (!has_kernel(op(sample.op))) continue;
      SCOPED_TRACE(sample_text(sample, type));
      const Graph region = parse_graph(sample_text(sample, type));
      const RegionRunner runner(region, {DeviceKind::cpu, cpu});
      expect_as_interpreted(runner, random_leaves(region, 5, sample.low, sample.high, sample.bound));
    }
}

std::vector<std::string> targets() {
  return host_cpu() == "x86-64-v3" ? std::vector<std::string>{"x86-64-v3"}
                                   : std::vector<std::string>{"x86-64-v3", "host"};
}

INSTANTIATE_TEST_SUITE_P(Cpu, KernelTable, testing::ValuesIn(targets()), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

}  // namespace
}  // namespace halfstep
