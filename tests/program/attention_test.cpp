#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program/program.h"
#include "program/program_check.h"
#include "tests/program/error_message.h"

namespace halfstep {
namespace {

using testing::HasSubstr;

// Forward and backward over one scratch buffer.
Program sample() {
  Program p;
  p.name = "train";
  p.buffers = {{"scratch", BufferKind::scratch, {DType::u8, {65536}}}};
  Attention a;
  a.batch = 2, a.heads = 4, a.key_heads = 2, a.queries = 5, a.keys = 6, a.depth = 8, a.value_depth = 16;
  a.scale = 0.35355339059327373, a.causal = true, a.operand = DType::bf16;
  a.q = {0, 0}, a.k = {0, 1024}, a.v = {0, 2048}, a.y = {0, 3072}, a.stats = {0, 5120};
  p.steps.push_back({a, "attention"});
  a.kind = AttentionKind::backward, a.deterministic = true;
  a.dy = Ref{0, 6144}, a.dq = Ref{0, 8192}, a.dk = Ref{0, 9216}, a.dv = Ref{0, 10240};
  p.steps.push_back({a, "attention (backward)"});
  return p;
}

TEST(AttentionStep, PrintsAndParses) {
  const Program program = sample();
  const std::string text = print(program);
  EXPECT_EQ(parse_program(text), program) << text;
  EXPECT_THAT(text, HasSubstr("scale=0.35355339059327373 causal=yes deterministic=yes operand=bf16"));
  EXPECT_THAT(error_of([&] { parse_program("program \"t\"\nattention \"x\" kind=sideways\n"); }),
              HasSubstr("line 2: kind: forward or backward expected, found 'sideways'"));
}

TEST(AttentionStep, IsDescribedAndCounted) {
  const Program p = sample();
  EXPECT_TRUE(is_library(p.steps[0].call));
  EXPECT_EQ(describe(p.steps[1]), "attention backward 8x5x6x8");
  EXPECT_EQ(cost(p.steps[0]).flops, 2.0 * (8 * 5 * 6 / 2) * (8 + 16));
  EXPECT_EQ(cost(p.steps[1]).flops, 2.0 * (8 * 5 * 6 / 2) * (3 * 8 + 2 * 16));
  EXPECT_EQ(cost(p.steps[0]).bytes, 2 * (2 * 5 * 4 * (8 + 16) + 2 * 6 * 2 * (8 + 16)) + 4 * 2 * 4 * 5);
  EXPECT_EQ(dependencies(p), (std::vector<std::vector<size_t>>{{}, {0}}));
}

TEST(AttentionStep, TakesOperandsBesideEachOther) {
  Program p = sample();
  for (Step& step : p.steps) {
    Attention& a = std::get<Attention>(step.call);
    a.keys = a.queries, a.value_depth = a.depth;
    a.k.reset(), a.v.reset(), a.dk.reset(), a.dv.reset();
  }
  check(p);
  EXPECT_EQ(parse_program(print(p)), p);
  EXPECT_EQ(cost(p.steps[0]).bytes, 2 * (2 * 5 * (4 + 2 + 2) * 8 + 2 * 5 * 4 * 8) + 4 * 2 * 4 * 5);
  std::get<Attention>(p.steps[0].call).keys = 6;
  EXPECT_THAT(error_of([&] { check(p); }), HasSubstr("k and v, or neither of them and one length and depth, expected"));
}

struct Bad {
  const char* what;
  void (*change)(Attention&);
  const char* message;
};

class AttentionStepError : public testing::TestWithParam<Bad> {};

TEST_P(AttentionStepError, NamesTheStep) {
  Program p = sample();
  check(p);
  GetParam().change(std::get<Attention>(p.steps[1].call));
  const std::string message = error_of([&] { check(p); });
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, HasSubstr("program 'train', step 1 (attention"));
}

INSTANTIATE_TEST_SUITE_P(
    All, AttentionStepError,
    testing::Values(Bad{"empty", [](Attention& a) { a.keys = 0; }, "lengths and depths must be positive"},
                    Bad{"heads", [](Attention& a) { a.key_heads = 3; }, "key_heads must divide heads"},
                    Bad{"type", [](Attention& a) { a.operand = DType::f32; }, "f16 or bf16 operands expected"},
                    Bad{"gradients", [](Attention& a) { a.dk.reset(); }, "dy, dq, dk and dv belong to backward"},
                    Bad{"parts", [](Attention& a) { a.k.reset(); }, "k and v, or neither of them"},
                    Bad{"forward", [](Attention& a) { a.kind = AttentionKind::forward; },
                        "dy, dq, dk and dv belong to backward"},
                    Bad{"overlap", [](Attention& a) { a.dq = a.q; }, "'dq' overlaps 'q'"},
                    Bad{"misaligned", [](Attention& a) { a.dv->offset += 8; }, "'dv' at offset 10248 is not aligned"},
                    Bad{"outside", [](Attention& a) { a.heads = 40000; }, "'q' needs"},
                    Bad{"overflow", [](Attention& a) { a.depth = INT64_MAX / 2; }, "overflows"}),
    [](const auto& info) { return std::string(info.param.what); });

}  // namespace
}  // namespace halfstep
