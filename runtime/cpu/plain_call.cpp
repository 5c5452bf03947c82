#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "runtime/cpu/cpu_call.h"

namespace halfstep {
namespace {

const double* doubles(const AddressOf& address, Ref ref) { return reinterpret_cast<const double*>(address(ref)); }

double bias_at(const std::byte* bias, DType type, int64_t index) {
  return bias == nullptr ? 0 : load_as_double(type, bias + index * size_of(type));
}

class PlainGemm final : public CpuCall {
 public:
  PlainGemm(const Gemm& gemm, const AddressOf& address)
      : g_(gemm),
        a_(doubles(address, gemm.a)),
        b_(doubles(address, gemm.b)),
        c_(reinterpret_cast<double*>(address(gemm.c))),
        addend_(gemm.addend ? doubles(address, *gemm.addend) : nullptr),
        bias_(gemm.bias ? address(*gemm.bias) : nullptr) {}

  void run() override {
    for (int64_t i = 0; i < g_.batch; ++i)
      multiply(a_ + i * g_.stride_a, b_ + i * g_.stride_b, addend_ ? addend_ + i * g_.stride_c : nullptr,
               c_ + i * g_.stride_c);
  }

 private:
  void multiply(const double* a, const double* b, const double* addend, double* c) const {
    for (int64_t row = 0; row < g_.m; ++row)
      for (int64_t column = 0; column < g_.n; ++column) {
        double sum = bias_at(bias_, g_.bias_type, column) + (addend ? addend[row * g_.n + column] : 0);
        for (int64_t k = 0; k < g_.k; ++k)
          sum += a[g_.transpose_a ? k * g_.m + row : row * g_.k + k] *
                 b[g_.transpose_b ? column * g_.k + k : k * g_.n + column];
        c[row * g_.n + column] = g_.relu && sum < 0 ? 0 : sum;
      }
  }

  Gemm g_;
  const double *a_, *b_;
  double* c_;
  const double* addend_;
  const std::byte* bias_;
};

// Always three spatial axes: missing ones have size 1.
using Axes = std::array<int64_t, 3>;

Axes axes(const Shape& shape, int64_t missing) {
  Axes result{missing, missing, missing};
  std::copy_backward(shape.begin(), shape.end(), result.end());
  return result;
}

class PlainConvolution final : public CpuCall {
 public:
  PlainConvolution(const Convolution& convolution, const AddressOf& address)
      : c_(convolution),
        x_(reinterpret_cast<double*>(address(convolution.x))),
        w_(reinterpret_cast<double*>(address(convolution.w))),
        y_(reinterpret_cast<double*>(address(convolution.y))),
        bias_(convolution.bias ? address(*convolution.bias) : nullptr) {}

  void run() override {
    const Axes spatial = axes(c_.spatial, 1), window = axes(c_.window, 1), out = axes(c_.out_spatial, 1);
    const int64_t x_size = c_.batch * spatial[0] * spatial[1] * spatial[2] * c_.in_channels;
    const int64_t w_size = c_.out_channels * window[0] * window[1] * window[2] * (c_.in_channels / c_.groups);
    const int64_t y_size = c_.batch * out[0] * out[1] * out[2] * c_.out_channels;
    switch (c_.kind) {
      case ConvolutionKind::forward:
        for (int64_t i = 0; i < y_size; ++i) y_[i] = bias_at(bias_, c_.bias_type, i % c_.out_channels);
        visit([this](int64_t x, int64_t w, int64_t y) { y_[y] += x_[x] * w_[w]; });
        for (int64_t i = 0; i < y_size; ++i) y_[i] = c_.relu && y_[i] < 0 ? 0 : y_[i];
        return;
      case ConvolutionKind::data_grad:
        std::fill_n(x_, x_size, 0.0);
        return visit([this](int64_t x, int64_t w, int64_t y) { x_[x] += w_[w] * y_[y]; });
      case ConvolutionKind::filter_grad:
        std::fill_n(w_, w_size, 0.0);
        return visit([this](int64_t x, int64_t w, int64_t y) { w_[w] += x_[x] * y_[y]; });
    }
  }

 private:
  // Every (x, w, y) triple of element indices that meets in the sum.
  template <typename Meet>
  void visit(const Meet& meet) const {
    const Axes spatial = axes(c_.spatial, 1), window = axes(c_.window, 1), out = axes(c_.out_spatial, 1);
    const Axes stride = axes(c_.strides, 1), pad = axes(c_.pads_begin, 0), dilation = axes(c_.dilations, 1);
    const auto for_each = [](const Axes& bound, const auto& body) {
      for (Axes at{}; at[0] < bound[0]; ++at[0])
        for (at[1] = 0; at[1] < bound[1]; ++at[1])
          for (at[2] = 0; at[2] < bound[2]; ++at[2]) body(at);
    };
    const auto flat = [](const Axes& at, const Axes& bound) { return (at[0] * bound[1] + at[1]) * bound[2] + at[2]; };
    const int64_t in_group = c_.in_channels / c_.groups, out_group = c_.out_channels / c_.groups;
    const int64_t spatial_size = spatial[0] * spatial[1] * spatial[2], window_size = window[0] * window[1] * window[2];
    const int64_t out_size = out[0] * out[1] * out[2];
    for (int64_t n = 0; n < c_.batch; ++n)
      for_each(out, [&](const Axes& to) {
        for_each(window, [&](const Axes& tap) {
          Axes from;
          for (size_t i = 0; i < 3; ++i) {
            from[i] = to[i] * stride[i] - pad[i] + tap[i] * dilation[i];
            if (from[i] < 0 || from[i] >= spatial[i]) return;
          }
          const int64_t x = (n * spatial_size + flat(from, spatial)) * c_.in_channels;
          const int64_t y = (n * out_size + flat(to, out)) * c_.out_channels;
          for (int64_t o = 0; o < c_.out_channels; ++o)
            for (int64_t i = 0; i < in_group; ++i)
              meet(x + o / out_group * in_group + i, (o * window_size + flat(tap, window)) * in_group + i, y + o);
        });
      });
  }

  Convolution c_;
  double *x_, *w_, *y_;
  const std::byte* bias_;
};

}  // namespace

std::unique_ptr<CpuCall> make_plain_call(const Gemm& gemm, const AddressOf& address) {
  require(gemm.operand == DType::f64 && gemm.result == DType::f64, "plain gemm is f64");
  return std::make_unique<PlainGemm>(gemm, address);
}

std::unique_ptr<CpuCall> make_plain_call(const Convolution& convolution, const AddressOf& address) {
  require(convolution.operand == DType::f64 && convolution.result == DType::f64, "plain convolution is f64");
  return std::make_unique<PlainConvolution>(convolution, address);
}

}  // namespace halfstep
