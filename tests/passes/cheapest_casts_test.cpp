// The cheapest types of free nodes against every assignment there is.
#include "passes/precision/cheapest_casts.h"

#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <random>

namespace halfstep {
namespace {

CastProblem random_problem(std::mt19937& random) {
  const auto below = [&](int n) { return static_cast<int32_t>(random() % static_cast<unsigned>(n)); };
  CastProblem problem;
  const int nodes = 2 + below(9);
  for (int i = 0; i < nodes; ++i) {
    problem.sides.push_back(static_cast<Side>(below(10) < 6 ? 0 : 1 + below(2)));
    problem.prefers_low.push_back(static_cast<char>(below(2)));
    problem.wide_costs.push_back(below(3) * 4);
  }
  for (int32_t maker = 0; maker + 1 < nodes; ++maker) {
    CastProblem::Value value{.maker = maker, .readers = {}, .cost = below(6) * 6};
    for (int32_t reader = maker + 1; reader < nodes; ++reader)
      if (below(3) == 0) value.readers.push_back(reader);
    const auto side = [&](int32_t node) { return problem.sides[static_cast<size_t>(node)]; };
    if (value.readers.size() == 1 && below(5) == 0 &&
        (side(maker) == Side::either || side(value.readers[0]) == Side::either))
      value.cost =
          side(maker) == Side::either && side(value.readers[0]) == Side::either ? CastProblem::kTied : value.cost;
    problem.values.push_back(value);
  }
  return problem;
}

// Of an assignment: its bytes, then how many nodes are against their preference. Nothing if it is none.
std::optional<std::pair<int64_t, int>> price(const CastProblem& problem, const std::vector<char>& is_low) {
  int against = 0;
  for (size_t i = 0; i < is_low.size(); ++i) {
    if (problem.sides[i] != Side::either && (problem.sides[i] == Side::low) != (is_low[i] != 0)) return std::nullopt;
    against += problem.sides[i] == Side::either && is_low[i] != problem.prefers_low[i];
  }
  for (const CastProblem::Value& value : problem.values)
    for (int32_t reader : value.readers)
      if (value.cost == CastProblem::kTied &&
          is_low[static_cast<size_t>(reader)] != is_low[static_cast<size_t>(value.maker)])
        return std::nullopt;
  return std::pair(cast_cost(problem, is_low), against);
}

TEST(CheapestCasts, AreTheBestOfAllAssignments) {
  std::mt19937 random(7);
  int compared = 0;
  for (int round = 0; round < 2000; ++round) {
    const CastProblem problem = random_problem(random);
    const size_t nodes = problem.sides.size();
    std::optional<std::pair<int64_t, int>> best;
    for (unsigned bits = 0; bits < 1U << nodes; ++bits) {
      std::vector<char> is_low;
      for (size_t i = 0; i < nodes; ++i) is_low.push_back((bits >> i) & 1);
      if (const auto found = price(problem, is_low); found && (!best || *found < *best)) best = found;
    }
    if (!best) continue;  // tied against fixed sides
    ++compared;
    ASSERT_EQ(price(problem, cheapest_casts(problem)), best) << "round " << round;
  }
  EXPECT_GT(compared, 1900);
}

TEST(CheapestCasts, OneCastServesAllReaders) {
  // A low maker of four bytes, three f32 readers: 4, not 12; a free node between takes the side where its value is
  // small.
  CastProblem problem{
      .sides = {Side::low, Side::either, Side::full, Side::full, Side::full},
      .prefers_low = {0, 0, 0, 0, 0},
      .wide_costs = {0, 0, 0, 0, 0},
      .values = {{.maker = 0, .readers = {1, 2, 3}, .cost = 4}, {.maker = 1, .readers = {4}, .cost = 1}}};
  const std::vector<char> found = cheapest_casts(problem);
  EXPECT_EQ(cast_cost(problem, found), 4);
  EXPECT_EQ(found[1], 0);
}

// As of sizes that a file may name: their bytes, times what weighs them, do not fit 64 bits.
TEST(CheapestCasts, MoreBytesThanCanBeCounted) {
  constexpr int64_t kBytes = int64_t{1} << 59;
  CastProblem problem;
  problem.sides = {Side::low, Side::either, Side::either, Side::full};
  problem.prefers_low = {0, 0, 1, 0};
  problem.wide_costs = {0, 0, 0, 0};
  problem.values = {{.maker = 0, .readers = {1}, .cost = kBytes},
                    {.maker = 1, .readers = {2}, .cost = kBytes / 2},
                    {.maker = 2, .readers = {3}, .cost = kBytes}};
  EXPECT_EQ(cheapest_casts(problem), (std::vector<char>{1, 1, 0, 0}));
  EXPECT_EQ(cast_cost(problem, {1, 1, 0, 0}), kBytes / 2);
  problem.values.assign(40, {.maker = 0, .readers = {3}, .cost = kBytes});
  EXPECT_EQ(cast_cost(problem, {1, 1, 1, 0}), std::numeric_limits<int64_t>::max());
}

}  // namespace
}  // namespace halfstep
