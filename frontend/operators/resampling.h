// Linear maps along one axis whose positions are known when the model is compiled: interpolation and padding.
#pragma once

#include <map>
#include <vector>

#include "ir/builder.h"

namespace halfstep {

// The elements that one result element sums, with their weights.
using Taps = std::map<int64_t, double>;

// Element o along `axis` of the result is the sum of taps[o]; x itself where that changes nothing.
Value resample(Builder& b, Value x, size_t axis, const std::vector<Taps>& taps);

// Adds low[i] elements of `value` before and high[i] behind axis i; negative numbers cut off.
Value pad_or_crop(Builder& b, Value x, Ints low, Ints high, double value);

}  // namespace halfstep
