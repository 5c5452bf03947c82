#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>

namespace halfstep {
namespace {

TEST(ParallelStretches, CoverEveryElementOnceInStretchesWorthAThread) {
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{1000}}) {
    std::vector<int> visits(static_cast<size_t>(count), 0);
    std::atomic<int64_t> stretches = 0;
    parallel_stretches(
        count,
        [&](int64_t begin, int64_t end) {
          ++stretches;
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        },
        100);
    EXPECT_EQ(std::accumulate(visits.begin(), visits.end(), int64_t{0}), count);
    EXPECT_TRUE(std::ranges::all_of(visits, [](int v) { return v == 1; }));
    EXPECT_EQ(stretches, std::clamp<int64_t>(count / 100, 1, usable_processors()));
  }
}

}  // namespace
}  // namespace halfstep
