// The graphs on which the gradient of every differentiable row is checked.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace halfstep {

struct GradientSample {
  std::string_view op;
  std::string text;  // a graph in f64 whose last node is the op
  double low, high;  // as in OpSample
  int64_t bound;
};

// Those of op_samples.h and more: at least ten for each row, with sizes 0 and 1, odd sizes, strides and every axis.
// The graph's axes count from 0; the frontend wraps negative ones.
std::vector<GradientSample> gradient_samples();

}  // namespace halfstep
