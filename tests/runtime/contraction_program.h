// Programs of one gemm or convolution over state buffers, and what they must compute, in plain loops.
#pragma once

#include <algorithm>
#include <array>

#include "base/philox.h"
#include "runtime/executor.h"

namespace halfstep {

// Small integers: sums of their products are exact in fp32, so a result that is rounded once is known to the last bit.
inline Tensor small_integers(TensorType type, uint64_t seed, int largest = 3) {
  Tensor tensor(std::move(type));
  for (int64_t i = 0; i < tensor.type.element_count(); ++i) {
    const float uniform = philox_uniform(seed, 0, 0, static_cast<uint64_t>(i));
    tensor.set(i, static_cast<int>(uniform * static_cast<float>(2 * largest + 1)) - largest);
  }
  return tensor;
}

struct NamedBuffer {
  const char* name;
  TensorType type;
};

// One program with these state buffers in this order, each at offset 0.
template <typename Call>
CompiledModel model_of(const Call& call, const std::vector<NamedBuffer>& buffers) {
  CompiledModel model;
  model.architecture = "x86-64";
  Program program;
  program.name = "train";
  for (const NamedBuffer& buffer : buffers) program.buffers.push_back({buffer.name, BufferKind::state, buffer.type});
  program.steps = {{call, "the call"}};
  model.programs = {program};
  return model;
}

inline void run_step(Executor& executor) {
  executor.begin_step(0);
  executor.submit();
}

// c before and after. Batch strides count elements of the buffers.
inline Tensor expected_gemm(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& before, const Tensor& bias,
                            const Tensor& addend) {
  Tensor c = before;
  for (int64_t i = 0; i < g.batch; ++i)
    for (int64_t row = 0; row < g.m; ++row)
      for (int64_t column = 0; column < g.n; ++column) {
        const int64_t to = i * g.stride_c + row * g.n + column;
        double sum = g.addend ? addend.at(to) : 0;
        if (g.bias) sum += bias.at(column);
        for (int64_t k = 0; k < g.k; ++k)
          sum += a.at(i * g.stride_a + (g.transpose_a ? k * g.m + row : row * g.k + k)) *
                 b.at(i * g.stride_b + (g.transpose_b ? column * g.k + k : k * g.n + column));
        c.set(to, g.relu ? std::max(sum, 0.0) : sum);
      }
  return c;
}

inline Shape activation_shape(int64_t batch, const Shape& spatial, int64_t channels) {
  Shape shape{batch};
  shape.insert(shape.end(), spatial.begin(), spatial.end());
  shape.push_back(channels);
  return shape;
}
inline Shape x_shape(const Convolution& c) { return activation_shape(c.batch, c.spatial, c.in_channels); }
inline Shape w_shape(const Convolution& c) {
  return activation_shape(c.out_channels, c.window, c.in_channels / c.groups);
}
inline Shape y_shape(const Convolution& c) { return activation_shape(c.batch, c.out_spatial, c.out_channels); }

// The operand that the convolution computes, from the other two, by walking all index tuples of the definition.
inline std::vector<double> expected_convolution(const Convolution& c, const Tensor& x, const Tensor& w, const Tensor& y,
                                                const Tensor& bias) {
  const Tensor& result = c.kind == ConvolutionKind::forward ? y : c.kind == ConvolutionKind::data_grad ? x : w;
  std::vector<double> sum(static_cast<size_t>(result.type.element_count()), 0.0);
  const size_t rank = c.spatial.size();
  const int64_t in_group = c.in_channels / c.groups, out_group = c.out_channels / c.groups;
  // Axes: n, out positions, window positions, out channel, in channel of the group.
  Shape bounds{c.batch};
  bounds.insert(bounds.end(), c.out_spatial.begin(), c.out_spatial.end());
  bounds.insert(bounds.end(), c.window.begin(), c.window.end());
  bounds.push_back(c.out_channels);
  bounds.push_back(in_group);
  const TensorType all{DType::f32, bounds};
  const std::vector<int64_t> strides = row_major_strides(bounds);
  for (int64_t flat = 0; flat < all.element_count(); ++flat) {
    const auto index = [&](size_t axis) { return flat / strides[axis] % bounds[axis]; };
    const int64_t o = index(2 * rank + 1), i = index(2 * rank + 2);
    int64_t at_x = index(0), at_y = index(0), at_w = o;
    bool inside = true;
    for (size_t axis = 0; axis < rank; ++axis) {
      const int64_t to = index(1 + axis), tap = index(1 + rank + axis);
      const int64_t from = to * c.strides[axis] + tap * c.dilations[axis] - c.pads_begin[axis];
      inside = inside && from >= 0 && from < c.spatial[axis];
      at_x = at_x * c.spatial[axis] + from;
      at_y = at_y * c.out_spatial[axis] + to;
      at_w = at_w * c.window[axis] + tap;
    }
    if (!inside) continue;
    at_x = at_x * c.in_channels + o / out_group * in_group + i;
    at_y = at_y * c.out_channels + o;
    at_w = at_w * in_group + i;
    switch (c.kind) {
      case ConvolutionKind::forward:
        sum[static_cast<size_t>(at_y)] += x.at(at_x) * w.at(at_w);
        break;
      case ConvolutionKind::data_grad:
        sum[static_cast<size_t>(at_x)] += w.at(at_w) * y.at(at_y);
        break;
      case ConvolutionKind::filter_grad:
        sum[static_cast<size_t>(at_w)] += x.at(at_x) * y.at(at_y);
        break;
    }
  }
  for (size_t i = 0; i < sum.size(); ++i) {
    if (c.bias) sum[i] += bias.at(static_cast<int64_t>(i) % c.out_channels);
    if (c.relu) sum[i] = std::max(sum[i], 0.0);
  }
  return sum;
}

}  // namespace halfstep
