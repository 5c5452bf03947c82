// What taps say of values, beside counts by hand.
#include "passes/training/tap_values.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ir/interpret.h"
#include "ir/text.h"

namespace halfstep {
namespace {

TapCounts counts_of(DType low, const std::vector<double>& values) {
  const auto size = static_cast<int64_t>(values.size());
  const Graph graph = parse_graph("graph train {\n  %x = input() {name=\"x\"} : f32[" + std::to_string(size) +
                                  "]\n  output measure \"tap.forward node\" = %x\n}\n");
  std::vector<Tap> taps;
  const Graph tapped = tap_values(graph, {}, {.low = low}, taps);
  Tensor x(TensorType{DType::f32, {size}});
  for (int64_t i = 0; i < size; ++i) x.set(i, values[static_cast<size_t>(i)]);
  const InterpretResult result = interpret(tapped, {{Name("x"), x}});
  for (const auto& [name, value] : result.outputs)
    if (name == kTaps) {
      const std::vector<float> row(value.values.begin(), value.values.end());
      EXPECT_EQ(row.size(), kTapRow);
      return read_tap(tap_bins(low), row, taps.at(0).counted);
    }
  ADD_FAILURE() << "no taps";
  return {};
}

TEST(Taps, CountWhatF16MakesOfValues) {
  const double infinity = std::numeric_limits<double>::infinity();
  const TapCounts c = counts_of(
      DType::f16, {0, -0.0, 0x1p-25, -0x1p-30, 0x1.8p-25, 0x1p-15, 0x1p-14, -1, 3, 65504, 65520, -1e9, infinity});
  EXPECT_EQ(c.counted, 13);
  EXPECT_EQ(c.zero, 2);
  EXPECT_EQ(c.underflow, 2);  // 2^-25 is halfway and rounds to 0
  EXPECT_EQ(c.subnormal, 2);
  EXPECT_EQ(c.overflow, 2);
  EXPECT_EQ(c.infinite, 1);
  EXPECT_EQ(c.nan, 0);
  EXPECT_EQ(c.largest, infinity);
  const TapBins bins = tap_bins(DType::f16);
  const auto bin = [&](int exponent) {
    return c.exponents.at(static_cast<size_t>((exponent - bins.first) / bins.width));
  };
  EXPECT_EQ(bin(0), 2);    // 1 and 3
  EXPECT_EQ(bin(-14), 1);  // 2^-14
  EXPECT_EQ(bin(-16), 1);  // 2^-15
  EXPECT_EQ(bin(-26), 2);  // 2^-25 and 1.5 times that
  EXPECT_EQ(bin(-30), 1);
  EXPECT_EQ(bin(14), 1);  // 65504
}

TEST(Taps, CountNaN) {
  const TapCounts c = counts_of(DType::bf16, {std::nan(""), 1, 0, 1e-40});
  EXPECT_EQ(c.nan, 1);
  EXPECT_EQ(c.zero, 1);
  EXPECT_EQ(c.subnormal, 1);
  EXPECT_TRUE(std::isnan(c.largest));
}

}  // namespace
}  // namespace halfstep
