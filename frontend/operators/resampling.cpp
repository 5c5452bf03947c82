#include "frontend/operators/resampling.h"

#include <algorithm>

#include "base/checked.h"

namespace halfstep {

Value resample(Builder& b, Value x, size_t axis, const std::vector<Taps>& taps) {
  Shape shape = b.shape(x);
  const auto outputs = static_cast<int64_t>(taps.size());
  bool same = outputs == shape[axis], repeats = shape[axis] == 1;
  size_t most = 1;
  for (size_t o = 0; o < taps.size(); ++o) {
    most = std::max(most, taps[o].size());
    same &= taps[o] == Taps{{static_cast<int64_t>(o), 1.0}};
    repeats &= taps[o] == Taps{{0, 1.0}};
  }
  if (same) return x;
  shape[axis] = outputs;
  if (repeats) return b.broadcast(x, shape);
  const Shape table{outputs, static_cast<int64_t>(most)};
  constexpr int64_t kMostTaps = int64_t{1} << 24;
  if (checked_element_count(table, "resampling") > kMostTaps)
    throw Error("resampling " + to_string(b.type(x)) + " reads " + to_string(table) + " elements: too many");
  Tensor positions(TensorType{DType::i64, table}), weights(TensorType{DType::f32, table});
  for (size_t o = 0; o < taps.size(); ++o) {
    size_t at = o * most;
    for (const auto& [position, weight] : taps[o]) {
      positions.as<int64_t>()[at] = position;
      weights.as<float>()[at++] = static_cast<float>(weight);
    }
    // The rest reads an element that is read anyhow: 0 times another one could be NaN.
    for (; at < (o + 1) * most; ++at) positions.as<int64_t>()[at] = taps[o].empty() ? 0 : taps[o].begin()->first;
  }
  return b.call(
      "resample", {x},
      {{"axis", static_cast<int64_t>(axis)}, {"positions", std::move(positions)}, {"weights", std::move(weights)}});
}

Value pad_or_crop(Builder& b, Value x, Ints low, Ints high, double value) {
  const Shape shape = b.shape(x);
  Ints starts(shape.size(), 0), limits(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    starts[i] = std::max<int64_t>(-low[i], 0), limits[i] = shape[i] - std::max<int64_t>(-high[i], 0);
    low[i] = std::max<int64_t>(low[i], 0), high[i] = std::max<int64_t>(high[i], 0);
  }
  const Value kept = b.slice(x, starts, limits);
  if (low == Ints(shape.size(), 0) && high == low) return kept;
  return b.call("pad", {kept}, {{"low", std::move(low)}, {"high", std::move(high)}, {"value", value}});
}

}  // namespace halfstep
