// Attention and its gradient in double, by their definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "program/calls.h"

namespace halfstep {

struct AttentionReference {
  std::vector<double> q, k, v, dy;
  std::vector<double> y, stats, dq, dk, dv;

  void compute(const Attention& a) {
    const auto count = [](int64_t n) { return static_cast<size_t>(n); };
    y.assign(count(a.batch * a.queries * a.heads * a.value_depth), 0);
    stats.assign(count(a.batch * a.heads * a.queries), 0);
    dq.assign(q.size(), 0), dk.assign(k.size(), 0), dv.assign(v.size(), 0);
    for (int64_t b = 0; b < a.batch; ++b)
      for (int64_t h = 0; h < a.heads; ++h)
        for (int64_t i = 0; i < a.queries; ++i) row(a, b, h, i);
  }

 private:
  void row(const Attention& a, int64_t b, int64_t h, int64_t i) {
    const int64_t kh = h / (a.heads / a.key_heads);
    const auto at = [](std::vector<double>& x, int64_t offset) { return x.data() + offset; };
    const int64_t query = (b * a.queries + i) * a.heads + h;
    const auto key = [&](int64_t j) { return (b * a.keys + j) * a.key_heads + kh; };
    const double* qi = at(q, query * a.depth);
    std::vector<double> p(static_cast<size_t>(a.keys));
    double maximum = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = 0; j < a.keys; ++j) {
      double s = 0;
      for (int64_t d = 0; d < a.depth; ++d) s += qi[d] * at(k, key(j) * a.depth)[d];
      s *= a.scale;
      if (a.causal && j > i) s = -std::numeric_limits<double>::infinity();
      p[static_cast<size_t>(j)] = s, maximum = std::max(maximum, s);
    }
    if (std::isfinite(maximum))
      for (double& s : p) s = std::exp(s - maximum), sum += s;
    else
      p.assign(p.size(), 0), sum = 1;
    stats[static_cast<size_t>((b * a.heads + h) * a.queries + i)] = maximum + std::log(sum);
    double inner = 0;
    double* yi = at(y, query * a.value_depth);
    const double* dyi = at(dy, query * a.value_depth);
    for (int64_t j = 0; j < a.keys; ++j)
      for (int64_t d = 0; d < a.value_depth; ++d)
        yi[d] += p[static_cast<size_t>(j)] / sum * at(v, key(j) * a.value_depth)[d];
    for (int64_t d = 0; d < a.value_depth; ++d) inner += dyi[d] * yi[d];
    for (int64_t j = 0; j < a.keys; ++j) {
      const double w = p[static_cast<size_t>(j)] / sum;
      double dp = 0;
      for (int64_t d = 0; d < a.value_depth; ++d) {
        dp += dyi[d] * at(v, key(j) * a.value_depth)[d];
        at(dv, key(j) * a.value_depth)[d] += w * dyi[d];
      }
      const double ds = a.scale * w * (dp - inner);
      for (int64_t d = 0; d < a.depth; ++d) {
        at(dq, query * a.depth)[d] += ds * at(k, key(j) * a.depth)[d];
        at(dk, key(j) * a.depth)[d] += ds * qi[d];
      }
    }
  }
};

}  // namespace halfstep
