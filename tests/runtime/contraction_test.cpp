// Gemm and Convolution of the CPU executor against plain loops, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/contraction_program.h"

namespace halfstep {
namespace {

struct Types {
  DType operand, result, bias;
};

// What autocast produces, and the mixtures a program may hold.
constexpr Types kTypes[] = {{DType::f32, DType::f32, DType::f32},    {DType::f16, DType::f16, DType::f32},
                            {DType::f16, DType::f32, DType::f16},    {DType::f16, DType::bf16, DType::bf16},
                            {DType::bf16, DType::bf16, DType::bf16}, {DType::bf16, DType::f32, DType::f32},
                            {DType::bf16, DType::f16, DType::f16},   {DType::f32, DType::f16, DType::f32},
                            {DType::f32, DType::bf16, DType::bf16},  {DType::f64, DType::f64, DType::f32}};

std::string type_names(const Types& t) {
  return std::string(name(t.operand)) + "_" + std::string(name(t.result)) + "_" + std::string(name(t.bias));
}

// ---- Gemm

enum class Addend : uint8_t { none, in_place, apart };

struct GemmCase {
  const char* what;
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = false;
  Addend addend = Addend::none;
  bool relu = false, bias = false;
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
};

constexpr GemmCase kGemms[] = {
    {"plain", 5, 7, 9},
    {"wide", 64, 96, 130},
    {"vector", 1, 10, 128},
    {"column", 33, 1, 17},
    {"transposed_a", 6, 10, 8, true},
    {"transposed_b", 6, 10, 8, false, true},
    {"transposed_both", 6, 10, 8, true, true},
    {"bias", 8, 10, 16, false, true, Addend::none, false, true},
    {"relu", 8, 10, 16, false, false, Addend::none, true},
    {"bias_relu", 8, 10, 16, false, false, Addend::none, true, true},
    {"accumulate", 8, 10, 16, true, false, Addend::in_place},
    {"accumulate_bias_relu", 8, 10, 16, false, false, Addend::in_place, true, true},
    {"addend", 8, 10, 16, false, true, Addend::apart},
    {"addend_bias_relu", 64, 96, 130, false, true, Addend::apart, true, true},
    {"batch", 4, 6, 5, false, false, Addend::none, false, false, 3, 20, 30, 24},
    {"batch_with_gaps", 4, 6, 5, false, true, Addend::in_place, true, true, 3, 23, 37, 29},
    {"batch_with_gaps_and_addend", 4, 6, 5, false, true, Addend::apart, false, true, 3, 23, 37, 29},
    {"batch_transposed", 4, 6, 5, true, true, Addend::none, false, false, 3, 20, 30, 24},
    {"batch_broadcasts_a", 4, 6, 5, false, false, Addend::none, false, true, 3, 0, 30, 24},
    {"batch_broadcasts_b", 4, 6, 5, false, false, Addend::in_place, false, false, 3, 20, 0, 31},
    {"packed_b", 512, 512, 3, true, false, Addend::apart, true, true},
    {"dense_products", 64, 72, 80, false, false, Addend::apart, true},
    {"dense_products_in_place", 72, 64, 80, true, false, Addend::in_place},
    {"many_small", 3, 2, 4, false, true, Addend::none, false, false, 70, 12, 8, 6},
};

class GemmTest : public testing::TestWithParam<GemmCase> {};

void expect_exact(const GemmCase& shape, const Types& types) {
  Gemm g;
  g.m = shape.m, g.n = shape.n, g.k = shape.k, g.batch = shape.batch;
  g.transpose_a = shape.transpose_a, g.transpose_b = shape.transpose_b;
  g.relu = shape.relu;
  g.stride_a = shape.stride_a, g.stride_b = shape.stride_b, g.stride_c = shape.stride_c;
  g.operand = types.operand, g.result = types.result, g.bias_type = types.bias;
  g.a = {0, 0}, g.b = {1, 0}, g.c = {2, 0};
  if (shape.bias) g.bias = Ref{3, 0};
  if (shape.addend != Addend::none) g.addend = Ref{shape.addend == Addend::in_place ? 2 : 4, 0};
  const auto elements = [&](int64_t stride, int64_t matrix) { return (g.batch - 1) * stride + matrix; };
  const Tensor a = small_integers({types.operand, {elements(g.stride_a, g.m * g.k)}}, 1);
  const Tensor b = small_integers({types.operand, {elements(g.stride_b, g.k * g.n)}}, 2);
  const Tensor c = small_integers({types.result, {elements(g.stride_c, g.m * g.n)}}, 3);
  const Tensor bias = small_integers({types.bias, {g.n}}, 4);
  const Tensor apart = small_integers(c.type, 5);
  const auto executor = make_cpu_executor(
      model_of(g, {{"a", a.type}, {"b", b.type}, {"c", c.type}, {"bias", bias.type}, {"addend", c.type}}), {});
  executor->write_state("a", a);
  executor->write_state("addend", apart);
  executor->write_state("b", b);
  executor->write_state("bias", bias);
  for (int run = 0; run < 2; ++run) {  // a second run finds a used workspace
    executor->write_state("c", c);
    run_step(*executor);
    // Between the matrices of a batch nothing may change, so all of c is compared.
    EXPECT_EQ(executor->read_state("c").values(),
              expected_gemm(g, a, b, c, bias, shape.addend == Addend::in_place ? c : apart).values());
  }
}

TEST_P(GemmTest, IsExactUpToOneRounding) {
  for (const Types& types : kTypes) {
    SCOPED_TRACE(type_names(types));
    expect_exact(GetParam(), types);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GemmTest, testing::ValuesIn(kGemms),
                         [](const auto& info) { return std::string(info.param.what); });

// ---- Convolution

struct ConvolutionCase {
  const char* what;
  int64_t batch, in_channels, out_channels, groups;
  Shape spatial, window, strides, pads_begin, pads_end, dilations;
};

const ConvolutionCase kConvolutions[] = {
    {"one_channel", 3, 1, 8, 1, {9, 8}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {"full_blocks", 1, 16, 32, 1, {5, 5}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {"odd_channels", 2, 5, 7, 1, {6, 7}, {3, 2}, {1, 1}, {1, 1}, {1, 0}, {1, 1}},
    {"strided_stem", 1, 3, 16, 1, {15, 15}, {7, 7}, {2, 2}, {3, 3}, {3, 3}, {1, 1}},
    {"pointwise_strided", 2, 8, 12, 1, {7, 7}, {1, 1}, {2, 2}, {0, 0}, {0, 0}, {1, 1}},
    {"unused_border", 2, 4, 4, 1, {8, 8}, {2, 2}, {3, 3}, {0, 0}, {0, 0}, {1, 1}},
    {"asymmetric", 2, 4, 6, 1, {5, 6}, {3, 3}, {1, 2}, {0, 2}, {2, 1}, {1, 1}},
    {"dilated", 2, 4, 6, 1, {9, 9}, {3, 3}, {1, 1}, {2, 1}, {2, 1}, {2, 3}},
    {"groups", 2, 6, 9, 3, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {"full_groups", 1, 32, 32, 2, {4, 4}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {"depthwise", 2, 16, 16, 16, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {"depthwise_multiplied", 2, 3, 6, 3, {6, 6}, {3, 3}, {2, 1}, {1, 1}, {1, 1}, {1, 1}},
    {"one_axis", 2, 4, 6, 1, {11}, {3}, {2}, {1}, {0}, {2}},
    {"one_axis_groups", 2, 4, 6, 2, {11}, {3}, {1}, {1}, {1}, {1}},
    {"three_axes", 1, 3, 4, 1, {4, 5, 6}, {2, 3, 2}, {1, 2, 1}, {1, 1, 0}, {0, 1, 1}, {1, 1, 2}},
    {"three_axes_groups", 1, 4, 4, 2, {4, 4, 4}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
};

Convolution convolution_of(const ConvolutionCase& shape, ConvolutionKind kind, const Types& types) {
  Convolution c;
  c.kind = kind;
  c.batch = shape.batch, c.in_channels = shape.in_channels, c.out_channels = shape.out_channels;
  c.groups = shape.groups, c.spatial = shape.spatial, c.window = shape.window, c.strides = shape.strides;
  c.pads_begin = shape.pads_begin, c.pads_end = shape.pads_end, c.dilations = shape.dilations;
  for (size_t i = 0; i < c.spatial.size(); ++i)
    c.out_spatial.push_back(
        (c.spatial[i] + c.pads_begin[i] + c.pads_end[i] - c.dilations[i] * (c.window[i] - 1) - 1) / c.strides[i] + 1);
  c.operand = types.operand, c.result = types.result, c.bias_type = types.bias;
  c.x = {0, 0}, c.w = {1, 0}, c.y = {2, 0};
  return c;
}

std::vector<double> computed(const Convolution& c, std::vector<double>* expected) {
  const auto type_of = [&](ConvolutionKind writer) { return c.kind == writer ? c.result : c.operand; };
  const Tensor x = small_integers({type_of(ConvolutionKind::data_grad), x_shape(c)}, 1);
  const Tensor w = small_integers({type_of(ConvolutionKind::filter_grad), w_shape(c)}, 2);
  const Tensor y = small_integers({type_of(ConvolutionKind::forward), y_shape(c)}, 3);
  const Tensor bias = small_integers({c.bias_type, {c.out_channels}}, 4);
  const auto executor =
      make_cpu_executor(model_of(c, {{"x", x.type}, {"w", w.type}, {"y", y.type}, {"bias", bias.type}}), {});
  executor->write_state("x", x);
  executor->write_state("w", w);
  executor->write_state("y", y);
  executor->write_state("bias", bias);
  const char* const result = c.kind == ConvolutionKind::forward     ? "y"
                             : c.kind == ConvolutionKind::data_grad ? "x"
                                                                    : "w";
  if (expected != nullptr) *expected = expected_convolution(c, x, w, y, bias);
  run_step(*executor);
  const std::vector<double> values = executor->read_state(result).values();
  run_step(*executor);  // a second run finds a used workspace
  EXPECT_EQ(executor->read_state(result).values(), values);
  return values;
}

void expect_exact(const Convolution& c) {
  std::vector<double> expected;
  EXPECT_EQ(computed(c, &expected), expected);
}

class ConvolutionTest : public testing::TestWithParam<ConvolutionCase> {};

TEST_P(ConvolutionTest, IsExactUpToOneRounding) {
  for (const Types& types : kTypes) {
    SCOPED_TRACE(type_names(types));
    for (const ConvolutionKind kind :
         {ConvolutionKind::forward, ConvolutionKind::data_grad, ConvolutionKind::filter_grad}) {
      SCOPED_TRACE(name(kind));
      expect_exact(convolution_of(GetParam(), kind, types));
    }
    SCOPED_TRACE("bias and relu");
    Convolution c = convolution_of(GetParam(), ConvolutionKind::forward, types);
    c.relu = true;
    expect_exact(c);
    c.bias = Ref{3, 0};
    expect_exact(c);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ConvolutionTest, testing::ValuesIn(kConvolutions),
                         [](const auto& info) { return std::string(info.param.what); });

// Large enough for Winograd's algorithm, which rounds on its way: beside the plain loops of f64.
TEST(Winograd, IsNearTheExactSums) {
  const ConvolutionCase shape{"", 16, 64, 64, 1, {8, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}};
  for (const ConvolutionKind kind :
       {ConvolutionKind::forward, ConvolutionKind::data_grad, ConvolutionKind::filter_grad})
    for (const Types& types : {kTypes[0], kTypes[1], kTypes[4], kTypes[5]}) {
      SCOPED_TRACE(std::string(name(kind)) + " " + type_names(types));
      Convolution c = convolution_of(shape, kind, types);
      if (kind == ConvolutionKind::forward) {
        c.relu = true;
        c.bias = Ref{3, 0};
      }
      const std::vector<double> found = computed(c, nullptr);
      c.operand = c.result = DType::f64;
      const std::vector<double> exact = computed(c, nullptr);
      double squares = 0;
      for (const double value : exact) squares += value * value;
      const double inside = 2e-5 * std::sqrt(squares / static_cast<double>(exact.size()));
      const double rounding = types.result == DType::bf16 ? 0x1p-8 : types.result == DType::f16 ? 0x1p-11 : 0;
      for (size_t i = 0; i < exact.size(); ++i)
        ASSERT_NEAR(found[i], exact[i], inside + rounding * std::abs(exact[i])) << i;
    }
}

// Enough samples to be computed in pieces where they are converted, by few threads.
TEST(ConvolutionInPieces, IsExactUpToOneRounding) {
  const ConvolutionCase shape{"", 48, 3, 32, 1, {20, 20}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}};
  for (const ConvolutionKind kind : {ConvolutionKind::forward, ConvolutionKind::data_grad})
    for (const Types& types : {kTypes[1], kTypes[4], kTypes[7]}) {
      SCOPED_TRACE(std::string(name(kind)) + " " + type_names(types));
      Convolution c = convolution_of(shape, kind, types);
      std::vector<double> found = computed(c, nullptr);
      c.operand = c.result = DType::f64;
      std::vector<double> exact = computed(c, nullptr);
      for (double& value : exact) value = round_to(types.result, value);
      EXPECT_EQ(found, exact);
    }
}

// ---- Numbers at the edges

Gemm one_row(DType operand, DType result, int64_t k) {
  Gemm g;
  g.m = 1, g.n = 16, g.k = k;
  g.operand = operand, g.result = result;
  g.a = {0, 0}, g.b = {1, 0}, g.c = {2, 0};
  return g;
}

Tensor run_gemm(const Gemm& g, const Tensor& a, const Tensor& b) {
  const auto executor =
      make_cpu_executor(model_of(g, {{"a", a.type}, {"b", b.type}, {"c", {g.result, {g.m, g.n}}}}), {});
  executor->write_state("a", a);
  executor->write_state("b", b);
  run_step(*executor);
  return executor->read_state("c");
}

Tensor filled(TensorType type, double value) {
  Tensor tensor(std::move(type));
  for (int64_t i = 0; i < tensor.type.element_count(); ++i) tensor.set(i, value);
  return tensor;
}

// 4096 ones: fp16 sums stop at 2048, bf16 sums at 256.
TEST(Numbers, LowOperandsAreSummedInFp32) {
  for (const DType type : {DType::f16, DType::bf16}) {
    const Tensor c = run_gemm(one_row(type, type, 4096), filled({type, {1, 4096}}, 1), filled({type, {4096, 16}}, 1));
    EXPECT_EQ(c.values(), std::vector<double>(16, 4096.0)) << name(type);
  }
}

TEST(Numbers, ReluKeepsNaNAndOverflowBecomesInfinity) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    Gemm g = one_row(type, type, 2);
    g.relu = true;
    Tensor b = filled({type, {2, 16}}, -1);
    b.set(3, NAN);
    b.set(5, INFINITY);
    b.set(6, -INFINITY);
    const Tensor c = run_gemm(g, filled({type, {1, 2}}, 1), b);
    EXPECT_EQ(c.at(0), 0) << name(type);
    EXPECT_TRUE(std::isnan(c.at(3))) << name(type);
    EXPECT_EQ(c.at(5), INFINITY) << name(type);
    EXPECT_EQ(c.at(6), 0) << name(type);
  }
  const Tensor c = run_gemm(one_row(DType::f16, DType::f16, 2), filled({DType::f16, {1, 2}}, 256),
                            filled({DType::f16, {2, 16}}, 256));
  EXPECT_EQ(c.at(0), INFINITY);
}

// The rounding of every operand and result is base/dtype's, also for subnormal halves.
TEST(Numbers, HalvesAreConvertedExactly) {
  Gemm g = one_row(DType::f16, DType::f32, 1);
  g.n = 65536;
  Tensor b({DType::f16, {1, g.n}});
  for (size_t i = 0; i < 65536; ++i) b.as<uint16_t>()[i] = static_cast<uint16_t>(i);
  const Tensor wide = run_gemm(g, filled({DType::f16, {1, 1}}, 1), b);
  g.operand = DType::f32;
  for (const DType low : {DType::f16, DType::bf16}) {
    g.result = low;
    Tensor values({DType::f32, {1, g.n}});
    for (uint32_t i = 0; i < 65536; ++i) {
      if (!std::isnan(b.at(i))) {
        EXPECT_EQ(wide.at(i), b.at(i)) << i;
      }
      // Around every half: ties, just above and below them, overflow, subnormals.
      values.as<uint32_t>()[i] = i << 16 | (i * 0x1fff);
    }
    const Tensor narrow = run_gemm(g, filled({DType::f32, {1, 1}}, 1), values);
    for (int64_t i = 0; i < g.n; ++i) {
      const double expected = round_to(low, values.at(i));
      // The product itself may flush fp32 subnormals.
      if (std::fpclassify(static_cast<float>(values.at(i))) == FP_SUBNORMAL) continue;
      EXPECT_TRUE(std::isnan(expected) ? std::isnan(narrow.at(i)) : narrow.at(i) == expected) << values.at(i);
    }
  }
}

}  // namespace
}  // namespace halfstep
