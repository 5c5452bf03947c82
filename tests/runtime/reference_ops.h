// What the library calls of a Program mean, as plain loops in double: the truth the executors are tested against.
// Results are not rounded, so that a test can tell one rounding of the executor from two.
#pragma once

#include <algorithm>
#include <vector>

#include "program/program.h"

namespace halfstep {

// The new contents of c. The tensors hold what the references of the gemm point to; `bias` and `addend` are read only
// if it has them.
inline std::vector<double> reference_gemm(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c,
                                          const Tensor& bias, const Tensor& addend) {
  std::vector<double> result = c.values();
  for (int64_t batch = 0; batch < g.batch; ++batch) {
    for (int64_t row = 0; row < g.m; ++row) {
      for (int64_t column = 0; column < g.n; ++column) {
        const auto place = static_cast<size_t>(batch * g.stride_c + row * g.n + column);
        double sum = g.addend ? addend.at(static_cast<int64_t>(place)) : 0;
        if (g.bias) sum += bias.at(column);
        for (int64_t i = 0; i < g.k; ++i) {
          sum += a.at(batch * g.stride_a + (g.transpose_a ? i * g.m + row : row * g.k + i)) *
                 b.at(batch * g.stride_b + (g.transpose_b ? column * g.k + i : i * g.n + column));
        }
        result[place] = g.relu ? std::max(sum, 0.0) : sum;
      }
    }
  }
  return result;
}

// The new contents of y, x or w, whichever the kind computes.
inline std::vector<double> reference_convolution(const Convolution& c, const Tensor& x, const Tensor& w,
                                                 const Tensor& y, const Tensor& bias) {
  const Tensor& target = c.kind == ConvolutionKind::forward ? y : c.kind == ConvolutionKind::data_grad ? x : w;
  std::vector<double> sums(static_cast<size_t>(target.type.element_count()), 0.0);
  const auto count = [](const Shape& shape) {
    int64_t product = 1;
    for (const int64_t d : shape) product *= d;
    return product;
  };
  const std::vector<double> xs = x.values(), ws = w.values(), ys = y.values();
  const int64_t out_pixels = count(c.out_spatial), taps = count(c.window), pixels = count(c.spatial);
  const int64_t in_per_group = c.in_channels / c.groups, out_per_group = c.out_channels / c.groups;
  for (int64_t out = 0; out < out_pixels; ++out) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      // The input pixel under this tap, from the last axis to the first.
      int64_t in = 0, step = 1, out_rest = out, tap_rest = tap;
      bool inside = true;
      for (size_t axis = c.spatial.size(); axis-- > 0;) {
        const int64_t at = out_rest % c.out_spatial[axis] * c.strides[axis] - c.pads_begin[axis] +
                           tap_rest % c.window[axis] * c.dilations[axis];
        inside = inside && at >= 0 && at < c.spatial[axis];
        in += at * step;
        step *= c.spatial[axis];
        out_rest /= c.out_spatial[axis];
        tap_rest /= c.window[axis];
      }
      if (!inside) continue;
      for (int64_t batch = 0; batch < c.batch; ++batch) {
        for (int64_t to = 0; to < c.out_channels; ++to) {
          for (int64_t i = 0; i < in_per_group; ++i) {
            const int64_t from = to / out_per_group * in_per_group + i;
            const auto xi = static_cast<size_t>((batch * pixels + in) * c.in_channels + from);
            const auto wi = static_cast<size_t>((to * taps + tap) * in_per_group + i);
            const auto yi = static_cast<size_t>((batch * out_pixels + out) * c.out_channels + to);
            switch (c.kind) {
              case ConvolutionKind::forward:
                sums[yi] += xs[xi] * ws[wi];
                break;
              case ConvolutionKind::data_grad:
                sums[xi] += ys[yi] * ws[wi];
                break;
              case ConvolutionKind::filter_grad:
                sums[wi] += xs[xi] * ys[yi];
                break;
            }
          }
        }
      }
    }
  }
  if (c.kind == ConvolutionKind::forward) {
    for (size_t i = 0; i < sums.size(); ++i) {
      if (c.bias) sums[i] += bias.at(static_cast<int64_t>(i) % c.out_channels);
      if (c.relu) sums[i] = std::max(sums[i], 0.0);
    }
  }
  return sums;
}

}  // namespace halfstep
