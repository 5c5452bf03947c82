#include "program/lanes.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "program/program_check.h"

namespace halfstep {
namespace {

constexpr int64_t kSlot = 4096;

// "2<0,1": a kernel that writes slot 2 and reads slots 0 and 1.
struct Call {
  int64_t to = 0;
  std::vector<int64_t> from;
  int64_t bytes = 0;  // moved
};

Program program_of(const std::vector<Call>& calls) {
  Program program{"train", {{"scratch", BufferKind::scratch, {DType::u8, {64 * kSlot}}}}, {}};
  for (const Call& call : calls) {
    KernelLaunch k;
    k.kernel = "k";
    k.bytes = call.bytes;
    for (int64_t slot : call.from) k.arguments.push_back({0, slot * kSlot}), k.extents.push_back(kSlot);
    k.written = {static_cast<int64_t>(k.arguments.size())};
    k.arguments.push_back({0, call.to * kSlot}), k.extents.push_back(kSlot);
    program.steps.push_back({std::move(k), "node"});
  }
  return program;
}

Step product(int64_t a, int64_t b, int64_t c) {
  Gemm gemm;
  gemm.m = gemm.n = gemm.k = 16;
  gemm.a = {0, a * kSlot}, gemm.b = {0, b * kSlot}, gemm.c = {0, c * kSlot};
  return {gemm, "product"};
}

// "0 1<0 0": each step's lane, and what it waits for.
std::string text(const LanePlan& plan) {
  std::string text;
  for (size_t i = 0; i < plan.lane.size(); ++i) {
    text += (i ? " " : "") + std::to_string(plan.lane[i]);
    for (size_t w : plan.waits[i]) text += "<" + std::to_string(w);
  }
  return text;
}

std::string planned(const Program& program, LaneCounts lanes) {
  return text(plan_lanes(program, dependencies(program), lanes));
}

TEST(Lanes, AChainStaysOnOneLane) { EXPECT_EQ(planned(program_of({{1, {0}}, {2, {1}}, {3, {2}}}), {4, 4}), "0 0 0"); }

TEST(Lanes, TheLongestWayKeepsItsLane) {
  // Step 1 is read by nobody, 2 by step 3.
  EXPECT_EQ(planned(program_of({{1, {0}}, {2, {1}}, {3, {1}}, {4, {3}}}), {4, 4}), "0 1<0 0 0");
}

TEST(Lanes, WhatComesTogetherWaitsForTheOtherLane) {
  EXPECT_EQ(planned(program_of({{1, {0}}, {2, {0}}, {3, {1, 2}}, {4, {3}}}), {4, 4}), "0 1 0<1 0");
}

TEST(Lanes, NothingIsWaitedForTwice) {
  // Step 3 comes after step 1 by step 2, which waited for it.
  EXPECT_EQ(planned(program_of({{1, {0}}, {2, {0}}, {3, {1, 2}}, {4, {3, 2}}}), {2, 2}), "0 1 0<1 0");
}

TEST(Lanes, LargeStepsKeepToTwoLanes) {
  const int64_t large = int64_t{1} << 30;
  EXPECT_EQ(planned(program_of({{1, {0}, large}, {2, {0}, large}, {3, {0}}}), {4, 4}), "1 1 0");
}

TEST(Lanes, LibraryCallsKeepToTheirLanes) {
  Program program = program_of({{1, {0}}, {2, {0}}});
  program.steps.push_back(product(4, 5, 6));
  program.steps.push_back(product(4, 5, 7));
  EXPECT_EQ(planned(program, {4, 1}), "0 1 0 0");
  EXPECT_EQ(planned(program, {4, 4}), "0 1 2 3");
}

// The steps that come before each one by the order of lanes and by waits.
std::vector<std::vector<char>> order(const LanePlan& plan) {
  const size_t count = plan.lane.size();
  std::vector<std::vector<char>> before(count, std::vector<char>(count, 0));
  for (size_t i = 0; i < count; ++i) {
    const auto after = [&](size_t j) {
      before[i][j] = 1;
      for (size_t k = 0; k < j; ++k) before[i][k] |= before[j][k];
    };
    for (size_t j = 0; j < i; ++j)
      if (plan.lane[j] == plan.lane[i]) after(j);
    for (size_t w : plan.waits[i]) after(w);
  }
  return before;
}

TEST(Lanes, EveryDependencyOfRandomProgramsIsKept) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Call> calls;
    for (int i = 0; i < 40; ++i) {
      Call call{static_cast<int64_t>(random() % 24), {}, static_cast<int64_t>(random() % 100) * 2'000'000};
      for (int r = 0; r < 2; ++r)
        if (const auto slot = static_cast<int64_t>(random() % 24); slot != call.to) call.from.push_back(slot);
      calls.push_back(call);
    }
    const Program program = program_of(calls);
    const std::vector<std::vector<size_t>> waits = dependencies(program);
    const int lanes = 2 + static_cast<int>(random() % 4);
    const auto before = order(plan_lanes(program, waits, {lanes, 1 + static_cast<int>(random() % 2)}));
    for (size_t i = 0; i < waits.size(); ++i)
      for (size_t d : waits[i]) EXPECT_TRUE(before[i][d]) << "round " << round << ": " << d << " before " << i;
  }
}

}  // namespace
}  // namespace halfstep
