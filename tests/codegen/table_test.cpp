// Every op with a kernel, compiled for the host, against the interpreter in f32, f16 and bf16.
#include "ir/op.h"
#include "tests/codegen/compare.h"
#include "tests/op_samples.h"

namespace halfstep {
namespace {

bool has_kernel(const Op& op) {
  return op.kernel == KernelKind::pointwise || op.kernel == KernelKind::movement ||
         op.kernel == KernelKind::reduction || op.kernel == KernelKind::window || op.kernel == KernelKind::random;
}

TEST(KernelTable, EveryOpMatchesTheInterpreter) {
  for (const char* type : {"f32", "f16", "bf16"})
    for (const OpSample& sample : op_samples()) {
      if (!has_kernel(op(sample.op))) continue;
      SCOPED_TRACE(sample_text(sample, type));
      const Graph region = parse_graph(sample_text(sample, type));
      const RegionRunner runner(region);
      expect_as_interpreted(runner, random_leaves(region, 5, sample.low, sample.high, sample.bound));
    }
}

}  // namespace
}  // namespace halfstep
