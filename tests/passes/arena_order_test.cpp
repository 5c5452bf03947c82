// Where parameters lie in the arenas, and what is told of them.
#include <gtest/gtest.h>

#include <map>

#include "ir/text.h"
#include "passes/training/bind_arenas.h"

namespace halfstep {
namespace {

TEST(ArenaOrder, WhatReadsAParameterSaysWhereItsOutputsLieAndWhetherItIsATable) {
  const Graph graph = parse_graph(R"(
    graph model {
      %i = input() {name="ids"} : i64[2]
      %t = parameter() {name="table"} : f32[7,4]
      %a = parameter() {name="plain"} : f32[4,5]
      %b = parameter() {name="transposed"} : f32[6,5]
      %v = parameter() {name="vector"} : f32[6]
      %c = cast(%a) {to=f16}
      %x = gather(%t, %i) {axis=0}
      %h = cast(%x) {to=f16}
      %0 = matmul(%h, %c)
      %1 = cast(%0) {to=f32}
      %2 = matmul(%1, %b) {transpose_b=1}
      output "y" = %2
      output "v" = %v
    })");
  const ArenaLayout layout = plan_arenas(
      graph, {.weight_decay = 0.1,
              .no_decay = {"vectors"},
              .groups = {{.patterns = {"trans*", "vector"}, .weight_decay = 0.5, .rate = ParameterGroup::own}},
              .unfreeze = {{"table", 3}},
              .apart = OptimizerRow::matrices});
  std::map<std::string, const ArenaSlice*> slices;
  for (const ArenaSlice& slice : layout.slices) slices[slice.name] = &slice;
  const auto segment = [&](const char* name) { return layout.segments[slices.at(name)->segment]; };
  EXPECT_EQ(slices.at("plain")->output_axis, 1);
  EXPECT_EQ(slices.at("transposed")->output_axis, 0);
  EXPECT_TRUE(segment("plain").apart && segment("transposed").apart);
  EXPECT_FALSE(segment("table").apart) << "rows that ids choose are no matrix";
  EXPECT_FALSE(segment("vector").apart);
  EXPECT_EQ(segment("plain").weight_decay, 0.1);
  EXPECT_EQ(segment("transposed").weight_decay, 0.5);
  EXPECT_EQ(segment("vector").weight_decay, 0) << "no_decay holds in groups too";
  EXPECT_EQ(layout.rates[segment("plain").rate], ArenaRate());
  EXPECT_EQ(layout.rates[segment("table").rate], (ArenaRate{.from_epoch = 3}));
  EXPECT_EQ(layout.rates[segment("transposed").rate], (ArenaRate{.group = 0}));
  EXPECT_EQ(segment("transposed").rate, segment("vector").rate);
  for (const ArenaSlice& slice : layout.slices) {
    EXPECT_LE(slice.offset + slice.size(), layout.segments[slice.segment].end);
    if (slice.segment > 0) {
      EXPECT_GE(slice.offset, layout.segments[slice.segment - 1].end);
    }
  }
  EXPECT_EQ(layout.segments.back().end, layout.size);
}

}  // namespace
}  // namespace halfstep
