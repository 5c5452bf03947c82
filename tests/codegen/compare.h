// A region compiled for the host against the interpreter.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "ir/interpret.h"
#include "ir/text.h"
#include "tests/codegen/region_runner.h"
#include "tests/random_tensors.h"

namespace halfstep {

// What one rounding to the type may cost, twice over: functions computed in f32 may round the other way.
inline double tolerance(DType type) {
  switch (type) {
    case DType::f16:
      return 0x1p-9;
    case DType::bf16:
      return 0x1p-6;
    case DType::f32:
      return 4e-6;
    case DType::f64:
      return 1e-12;
    default:
      return 0;
  }
}

// Largest |actual - expected| / max(1, |expected|); infinite if one is NaN or infinite where the other is not.
inline double distance(const Tensor& actual, const InterpretedTensor& expected) {
  EXPECT_EQ(to_string(actual.type), to_string(expected.type));
  double worst = 0;
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const double a = actual.at(static_cast<int64_t>(i)), e = expected.values[i];
    if (a == e || (std::isnan(a) && std::isnan(e))) continue;
    const double d = std::abs(a - e) / std::max(1.0, std::abs(e));
    if (!(d <= worst)) worst = std::isfinite(d) ? d : INFINITY;
  }
  return worst;
}

inline void expect_as_interpreted(const RegionRunner& runner, const NamedTensors& leaves, double scale = 1) {
  const std::vector<Tensor> actual = runner.run(leaves);
  const InterpretResult expected = interpret(runner.region(), leaves);
  for (size_t i = 0; i < actual.size(); ++i) {
    const NamedValue& output = runner.region().outputs()[i];
    DType widest = actual[i].type.dtype;
    // An output may be wider than what it was computed from.
    for (const auto& [name, leaf] : leaves)
      if (is_floating(leaf.type.dtype) && is_floating(widest) && tolerance(leaf.type.dtype) > tolerance(widest))
        widest = leaf.type.dtype;
    EXPECT_LE(distance(actual[i], expected.outputs.at(output.name)), scale * tolerance(widest))
        << "output " << to_string(output.name) << " of\n"
        << print(runner.region());
  }
}

inline void expect_as_interpreted(const std::string& text, double low = -2, double high = 2, int64_t bound = 2,
                                  double scale = 1) {
  const Graph region = parse_graph(text);
  const RegionRunner runner(region);
  expect_as_interpreted(runner, random_leaves(region, 1, low, high, bound), scale);
}

}  // namespace halfstep
