#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program/program.h"
#include "program/program_check.h"
#include "tests/program/error_message.h"

namespace halfstep {
namespace {

using testing::HasSubstr;

// Forward and backward over one scratch buffer, from a state that is given.
Program sample() {
  Program p;
  p.name = "train";
  p.buffers = {{"scratch", BufferKind::scratch, {DType::u8, {65536}}}};
  Recurrent r;
  r.sizes = {.steps = 3, .batch = 2, .inputs = 5, .hidden = 4, .layers = 2, .directions = 1};
  r.operand = DType::bf16, r.reserve_bytes = 512;
  r.x = {0, 0}, r.weights = {0, 1024}, r.y = {0, 4096}, r.h = Ref{0, 5120}, r.reserve = Ref{0, 6144};
  r.h_last = Ref{0, 7168}, r.c_last = Ref{0, 8192};
  p.steps.push_back({r, "lstm"});
  r.kind = RecurrentKind::backward, r.h_last.reset(), r.c_last.reset();
  r.dy = Ref{0, 9216}, r.dc_last = Ref{0, 10240};
  r.dx = Ref{0, 11264}, r.dweights = Ref{0, 12288}, r.dh = Ref{0, 16384};
  p.steps.push_back({r, "lstm (backward)"});
  return p;
}

constexpr int64_t kWeights = 16 * (5 + 4) + 16 * (4 + 4) + 4 * 16;

TEST(RecurrentStep, PrintsAndParses) {
  const Program program = sample();
  const std::string text = print(program);
  EXPECT_EQ(parse_program(text), program) << text;
  EXPECT_THAT(text, HasSubstr("cell=lstm steps=3 batch=2 inputs=5 hidden=4 layers=2 reserve_bytes=512 operand=bf16"));
  EXPECT_THAT(error_of([&] { parse_program("program \"t\"\nrecurrent \"x\" kind=forward cell=cell\n"); }),
              HasSubstr("line 2: cell: lstm, gru, tanh or relu expected, found 'cell'"));
}

TEST(RecurrentStep, IsDescribedAndCounted) {
  const Program p = sample();
  EXPECT_TRUE(is_library(p.steps[0].call));
  EXPECT_EQ(describe(p.steps[1]), "recurrent backward lstm 3x2x5->2x1x4");
  EXPECT_EQ(weight_count(std::get<Recurrent>(p.steps[0].call).sizes), kWeights);
  EXPECT_EQ(cost(p.steps[0]).flops, 2.0 * kWeights * 3 * 2);
  EXPECT_EQ(cost(p.steps[1]).flops, 4.0 * kWeights * 3 * 2);
  EXPECT_EQ(cost(p.steps[0]).bytes, 2 * (3 * 2 * 5 + kWeights + 3 * 2 * 4 + 3 * (2 * 2 * 4)) + 512);
  EXPECT_EQ(dependencies(p), (std::vector<std::vector<size_t>>{{}, {0}}));
}

struct Bad {
  const char* what;
  void (*change)(Recurrent&);
  const char* message;
};

class RecurrentStepError : public testing::TestWithParam<Bad> {};

TEST_P(RecurrentStepError, NamesTheStep) {
  Program p = sample();
  check(p);
  GetParam().change(std::get<Recurrent>(p.steps[1].call));
  const std::string message = error_of([&] { check(p); });
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, HasSubstr("program 'train', step 1 (recurrent"));
}

INSTANTIATE_TEST_SUITE_P(
    All, RecurrentStepError,
    testing::Values(Bad{"empty", [](Recurrent& r) { r.sizes.steps = 0; }, "must be positive"},
                    Bad{"large", [](Recurrent& r) { r.sizes.hidden = int64_t{1} << 40; }, "a size is above 2^31 - 1"},
                    Bad{"directions", [](Recurrent& r) { r.sizes.directions = 3; }, "one or two directions expected"},
                    Bad{"type", [](Recurrent& r) { r.operand = DType::f64; }, "f16, bf16 or f32 operands expected"},
                    Bad{"reserve", [](Recurrent& r) { r.reserve.reset(); }, "reserve and its bytes belong together"},
                    Bad{"cell", [](Recurrent& r) { r.sizes.cell = RecurrentCell::gru; }, "belong to an lstm"},
                    Bad{"gradients", [](Recurrent& r) { r.dweights.reset(); }, "gradients belong to backward"},
                    Bad{"state", [](Recurrent& r) { r.dh.reset(); }, "dh belongs to h"},
                    Bad{"overlap", [](Recurrent& r) { r.dx = r.x; }, "'dx' overlaps 'x'"},
                    Bad{"misaligned", [](Recurrent& r) { r.dh->offset += 8; }, "'dh' at offset 16392 is not aligned"},
                    Bad{"outside", [](Recurrent& r) { r.sizes.inputs = 40000; }, "'x' needs"}),
    [](const auto& info) { return std::string(info.param.what); });

}  // namespace
}  // namespace halfstep
