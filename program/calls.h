// What a step of a Program calls, and the memory that it names.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/recurrent.h"
#include "base/tensor.h"

namespace halfstep {

// Byte `offset` (16-byte aligned for library operands) in buffers[buffer].
struct Ref {
  int32_t buffer = 0;
  int64_t offset = 0;
  friend bool operator==(const Ref&, const Ref&) = default;
};

// cuda: `kernel` of the PTX module with one pointer per argument, on `grid` blocks of `block` threads.
// cpu: void kernel(void* const* arguments, int64_t begin, int64_t end) over ranges that cover [0, units); units are
// independent, so any split over threads gives the same bits.
struct KernelLaunch {
  std::string kernel;
  std::vector<Ref> arguments;
  std::array<int64_t, 3> grid{1, 1, 1};
  int64_t block = 1;
  int64_t units = 1;
  int64_t bytes = 0;  // moved, for the profile and the split on the CPU
  // Bytes each argument reaches, and which are written, by number; without them: its whole buffer.
  std::vector<int64_t> extents = {}, written = {};
  // cuda: bytes of dynamic shared memory that a block makes use of; it gets those that cost no block its place beside
  // it on a processor, and works with fewer, and with none.
  int64_t shared = 0;
  friend bool operator==(const KernelLaunch&, const KernelLaunch&) = default;
};

// c[i] = relu(op(a[i]) @ op(b[i]) (+ addend[i]) (+ bias)), row-major; without `relu` the sum. op(a): [m, k], stored [k,
// m] if transpose_a; op(b): [k, n], stored [n, k] if transpose_b; c: [m, n]; bias: [n]; addend: as c, which it may be.
// Accumulates in fp32 (fp64 for f64) and rounds once. Batch strides in elements; 0 broadcasts an operand.
struct Gemm {
  int64_t m = 0, n = 0, k = 0, batch = 1;
  bool transpose_a = false, transpose_b = false, relu = false;
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;
  DType operand = DType::f32, result = DType::f32, bias_type = DType::f32;
  Ref a, b, c;
  std::optional<Ref> bias, addend;
  friend bool operator==(const Gemm&, const Gemm&) = default;
};

enum class ConvolutionKind : uint8_t { forward, data_grad, filter_grad };
std::string_view name(ConvolutionKind kind);

// Cross-correlation over 1 to 3 spatial axes, channels last. x: [batch, spatial..., in_channels],
// w: [out_channels, window..., in_channels / groups], y: [batch, out_spatial..., out_channels].
// forward: y from x, w. data_grad: x from w, y. filter_grad: w from x, y. `bias` [out_channels] and `relu`: forward.
struct Convolution {
  ConvolutionKind kind = ConvolutionKind::forward;
  int64_t batch = 0, in_channels = 0, out_channels = 0, groups = 1;
  Shape spatial, window, out_spatial, strides, pads_begin, pads_end, dilations;
  DType operand = DType::f32, result = DType::f32, bias_type = DType::f32;
  bool relu = false;
  Ref x, w, y;
  std::optional<Ref> bias;
  friend bool operator==(const Convolution&, const Convolution&) = default;
};

enum class AttentionKind : uint8_t { forward, backward };
std::string_view name(AttentionKind kind);

// y = softmax(scale q k^T) v for each head; key j is hidden from query i < j if `causal`. Query head h reads key
// head h / (heads / key_heads). Of `operand`, f16 or bf16: q and dq [batch, queries, heads, depth], k and dk
// [batch, keys, key_heads, depth], v and dv [batch, keys, key_heads, value_depth], y and dy
// [batch, queries, heads, value_depth]. stats: f32[batch, heads, queries], the logarithms of the sums of exponentials.
// Without k and v, q holds all three, [batch, queries, heads + 2 key_heads, depth], and dq all gradients.
// forward: y and stats from q, k and v. backward: dq, dk and dv from all others; `deterministic` in the
// same order each time, with memory for all scores.
struct Attention {
  AttentionKind kind = AttentionKind::forward;
  int64_t batch = 0, heads = 0, key_heads = 0, queries = 0, keys = 0, depth = 0, value_depth = 0;
  double scale = 1;
  bool causal = false, deterministic = false;
  DType operand = DType::f16;
  Ref q, y, stats;
  std::optional<Ref> k, v, dy, dq, dk, dv;
  bool packed() const { return !k && !v; }
  friend bool operator==(const Attention&, const Attention&) = default;
};

enum class RecurrentKind : uint8_t { forward, backward };
std::string_view name(RecurrentKind kind);

// A recurrent network (base/recurrent.h). All of `operand`, f16, bf16 or f32: x and dx [steps, batch, inputs], y and dy
// [steps, batch, directions * hidden], weights and dweights, states [layers * directions, batch, hidden]: h and c
// before the sequence, where they are left out zero, h_last and c_last behind it; c is an lstm's. reserve: what the
// backward wants of the forward, and writes over. forward: y, h_last, c_last and where it trains reserve from x,
// weights, h and c. backward: dx, dweights, and dh and dc where there are h and c, from all others; dh_last and dc_last
// where they are left out are zero.
struct Recurrent {
  RecurrentKind kind = RecurrentKind::forward;
  RecurrentSizes sizes;
  int64_t reserve_bytes = 0;  // 0, and no reserve: for evaluation
  DType operand = DType::f16;
  Ref x, weights, y;
  std::optional<Ref> h, c, h_last, c_last, reserve, dy, dh_last, dc_last, dx, dweights, dh, dc;
  friend bool operator==(const Recurrent&, const Recurrent&) = default;
};

struct Copy {
  Ref from, to;
  int64_t bytes = 0;
  friend bool operator==(const Copy&, const Copy&) = default;
};

}  // namespace halfstep
