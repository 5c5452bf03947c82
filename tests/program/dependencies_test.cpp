#include <gtest/gtest.h>

#include "program/program_check.h"

namespace halfstep {
namespace {

using Waits = std::vector<std::vector<size_t>>;

Program program_of(std::vector<KernelLaunch> launches) {
  Program program{"train", {{"scratch", BufferKind::scratch, {DType::u8, {1024}}}}, {}};
  for (KernelLaunch& launch : launches) program.steps.push_back({std::move(launch), "node"});
  return program;
}

// Reads [from, from + 64), writes [to, to + 64).
KernelLaunch launch(int64_t from, int64_t to) {
  KernelLaunch k;
  k.kernel = "k";
  k.arguments = {{0, from}, {0, to}};
  k.extents = {64, 64};
  k.written = {1};
  return k;
}

TEST(Dependencies, AReaderWaitsForItsWriterOnly) {
  EXPECT_EQ(dependencies(program_of({launch(0, 64), launch(0, 128), launch(128, 192)})), (Waits{{}, {}, {1}}));
}

TEST(Dependencies, OverwritingWaitsForReadersAndWriters) {
  EXPECT_EQ(dependencies(program_of({launch(0, 64), launch(64, 128), launch(0, 64)})), (Waits{{}, {0}, {1}}));
}

TEST(Dependencies, OverlapCountsInBytes) {
  EXPECT_EQ(dependencies(program_of({launch(0, 64), launch(127, 512), launch(128, 640)})), (Waits{{}, {0}, {}}));
}

TEST(Dependencies, WithoutExtentsALaunchIsABarrier) {
  KernelLaunch unknown = launch(0, 64);
  unknown.extents.clear();
  EXPECT_EQ(dependencies(program_of({launch(0, 64), launch(0, 128), unknown, launch(256, 320)})),
            (Waits{{}, {}, {1, 0}, {2}}));
}

}  // namespace
}  // namespace halfstep
