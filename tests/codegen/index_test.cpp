#include <gtest/gtest.h>

#include <functional>

#include "codegen/kernel/kernel_index.h"

namespace halfstep {
namespace {

// The value of an index where each variable has the value given.
int64_t value_of(const IndexSpace& space, const Index& index, const std::map<AtomId, int64_t>& variables) {
  int64_t sum = index.offset;
  for (const Index::Term& t : index.terms) {
    const Atom& atom = space.atom(t.atom);
    const int64_t v = atom.kind == Atom::Kind::variable   ? variables.at(t.atom)
                      : atom.kind == Atom::Kind::quotient ? value_of(space, atom.dividend, variables) / atom.divisor
                                                          : value_of(space, atom.dividend, variables) % atom.divisor;
    sum += v * t.factor;
  }
  return sum;
}

TEST(Index, SplittingAlongKnownAxesLeavesNoDivision) {
  IndexSpace space;
  const AtomId n = space.variable(3), h = space.variable(4), c = space.variable(8);
  const std::vector<Index> point{space.of(n), space.of(h), space.of(c)};
  const Index linear = space.linear(point, {3, 4, 8});
  EXPECT_EQ(space.split(linear, {3, 4, 8}), point);
  EXPECT_EQ(space.split(linear, {12, 8}), (std::vector<Index>{space.of(n) * 4 + space.of(h), space.of(c)}));
  EXPECT_EQ(space.split(linear, {3, 1, 32, 1}),
            (std::vector<Index>{space.of(n), Index(), space.of(h) * 8 + space.of(c), Index()}));
}

TEST(Index, DivisionsAreRightForEveryPoint) {
  IndexSpace space;
  const AtomId a = space.variable(5), b = space.variable(6);
  const Index index = space.of(a) * 7 + space.of(b) * 2 + -9;
  for (int64_t divisor : {1, 2, 3, 4, 7, 10, 100}) {
    const Index quotient = space.quotient(index, divisor), remainder = space.remainder(index, divisor);
    for (int64_t i = 0; i < 5; ++i)
      for (int64_t k = 0; k < 6; ++k) {
        const int64_t v = i * 7 + k * 2 - 9;
        const int64_t q = value_of(space, quotient, {{a, i}, {b, k}}), r = value_of(space, remainder, {{a, i}, {b, k}});
        EXPECT_EQ(q * divisor + r, v);
        EXPECT_TRUE(r >= 0 && r < divisor);
      }
  }
}

TEST(Index, AQuotientAndItsRemainderJoinAgain) {
  IndexSpace space;
  const AtomId v = space.variable(24);
  const std::vector<Index> split = space.split(space.of(v), {6, 4});
  EXPECT_NE(split[0], space.of(v));
  EXPECT_EQ(space.linear(split, {6, 4}), space.of(v));
  EXPECT_EQ(space.linear(split, {6, 4}) + space.linear(split, {6, 4}) * -1, Index());
}

TEST(Index, RangesCoverWhatTheyMay) {
  IndexSpace space;
  const Index index = space.of(space.variable(5)) * 3 + space.of(space.variable(4)) * -2 + 1;
  EXPECT_EQ(space.range(index).low, -5);
  EXPECT_EQ(space.range(index).high, 13);
}

TEST(Index, MultiplesOfTheLanes) {
  IndexSpace space;
  const AtomId row = space.variable(10), lane = space.variable(64);
  EXPECT_EQ(space.multiple(space.of(row) * 64 + space.of(lane), lane, 8), 8);
  EXPECT_EQ(space.multiple(space.of(row) * 12 + space.of(lane), lane, 8), 4);
  EXPECT_EQ(space.multiple(space.of(row) * 64 + space.of(lane) + 1, lane, 8), 1);
  EXPECT_EQ(space.multiple(space.remainder(space.of(row) * 64 + space.of(lane), 48), lane, 8), 8);
}

TEST(Index, NeighboursMergeWhereTheyAreOne) {
  IndexSpace space;
  const AtomId a = space.variable(4), b = space.variable(6);
  Index both = space.of(a) * 12 + space.of(b) * 2;
  EXPECT_TRUE(space.merges(both, a, b));
  EXPECT_FALSE(space.merges(space.of(a) * 10 + space.of(b) * 2, a, b));
  EXPECT_FALSE(space.merges(space.of(b), a, b));
  const AtomId merged = space.variable(24);
  space.merge(both, a, b, merged);
  EXPECT_EQ(both, space.of(merged) * 2);
}

}  // namespace
}  // namespace halfstep
