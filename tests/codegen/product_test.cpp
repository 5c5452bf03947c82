// Products as steps of a program: what is added to them, and where their result lies.
#include <gtest/gtest.h>

#include "codegen/lower/lower.h"
#include "ir/text.h"
#include "program/program.h"

namespace halfstep {
namespace {

// %s = %h %w + %b + %h, whose addend ends there unless `more` reads it.
std::string residual(const std::string& more) {
  return R"(graph train {
  %x = input() {name="x"} : f16[64,32]
  %w = input() {name="w"} : f16[32,32]
  %b = input() {name="b"} : f16[32]
  %h = matmul(%x, %w)
  %y = matmul(%h, %w)
  %s = matmul(%y, %w, %b, %h)
  %r = matmul(%s, %w, _, %y)
  output "r" = %r
)" + more +
         "}\n";
}

Gemm gemm(const Program& program, size_t step) { return std::get<Gemm>(program.steps.at(step).call); }

TEST(Product, LiesOverItsAddendWhereThatEnds) {
  KernelModule module({DeviceKind::cpu, host_cpu()});
  const Program program = lower(parse_graph(residual("")), "train", module).program;
  ASSERT_EQ(program.steps.size(), 4u) << print(program);
  const Gemm sum = gemm(program, 2), last = gemm(program, 3);
  EXPECT_EQ(sum.addend, gemm(program, 0).c);
  EXPECT_EQ(sum.c, gemm(program, 0).c);
  EXPECT_TRUE(sum.bias.has_value());
  EXPECT_EQ(sum.bias_type, DType::f16);
  EXPECT_FALSE(last.bias.has_value());
  EXPECT_EQ(last.addend, gemm(program, 1).c);
  EXPECT_NE(last.c, gemm(program, 1).c) << "an output has memory of its own";
}

TEST(Product, LeavesAnAddendThatIsReadLater) {
  KernelModule module({DeviceKind::cpu, host_cpu()});
  const Program program =
      lower(parse_graph(residual("  %t = matmul(%h, %w) {transpose_b=1}\n  output \"t\" = %t\n")), "train", module)
          .program;
  const Gemm sum = gemm(program, 2);
  EXPECT_EQ(sum.addend, gemm(program, 0).c);
  EXPECT_NE(sum.c, gemm(program, 0).c) << print(program);
}

TEST(Product, HasMemoryOfItsOwnWhereAllFits) {
  constexpr const char* kChain = R"(graph train {
  %x = input() {name="x"} : f16[32,32]
  %a = matmul(%x, %x)
  %b = matmul(%a, %x)
  %c = matmul(%b, %x)
  %d = matmul(%c, %x)
  %e = matmul(%d, %x)
  output "e" = %e
})";
  const auto scratch = [](int64_t apart) {
    KernelModule module({DeviceKind::cpu, host_cpu()});
    return lower(parse_graph(kChain), "train", module, apart).program.buffers.back().type.byte_count();
  };
  EXPECT_EQ(scratch(0), 2 * 2048);
  EXPECT_EQ(scratch(4 * 2048), 4 * 2048);
  EXPECT_EQ(scratch(4 * 2048 - 1), 2 * 2048) << "the limit counts all values";
}

}  // namespace
}  // namespace halfstep
