// Gemm and convolution steps on the GPU against plain loops.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "base/philox.h"
#include "tests/gpu/gpu_test.h"
#include "tests/runtime/reference_ops.h"

namespace halfstep {
namespace {

struct GemmCase {
  const char* name;
  Gemm gemm;  // the test gives its operands their places
  bool allow_tf32 = false;
  bool in_place = false;  // the addend is c
};

GemmCase gemm_case(const char* name, int64_t m, int64_t n, int64_t k, DType operand, DType result) {
  GemmCase test{name, {}};
  test.gemm.m = m;
  test.gemm.n = n;
  test.gemm.k = k;
  test.gemm.operand = operand;
  test.gemm.result = result;
  test.gemm.bias_type = result;
  return test;
}

std::vector<GemmCase> gemm_cases() {
  std::vector<GemmCase> cases;
  const auto add = [&](const char* name, int64_t m, int64_t n, int64_t k, DType operand, DType result) -> Gemm& {
    return cases.emplace_back(gemm_case(name, m, n, k, operand, result)).gemm;
  };
  add("plain", 33, 48, 65, DType::f32, DType::f32);
  add("transposed_a", 33, 48, 65, DType::f32, DType::f32).transpose_a = true;
  add("transposed_b", 33, 48, 65, DType::f32, DType::f32).transpose_b = true;
  Gemm& both = add("transposed_both", 33, 48, 65, DType::f16, DType::f32);
  both.transpose_a = both.transpose_b = true;
  add("half", 128, 256, 784, DType::f16, DType::f16).transpose_b = true;
  add("half_of_odd_sizes", 127, 10, 333, DType::f16, DType::f16).transpose_b = true;
  add("bfloat", 128, 64, 96, DType::bf16, DType::bf16);
  add("bfloat_to_float", 128, 64, 96, DType::bf16, DType::f32);
  add("float_to_half", 32, 40, 64, DType::f32, DType::f16);  // only with the rows kernel
  add("double_precision", 17, 19, 23, DType::f64, DType::f64);
  for (const bool in_place : {true, false}) {
    const auto add_to = [&](const char* name, int64_t n, DType operand, DType result) -> Gemm& {
      Gemm& gemm = add(name, 64, n, 128, operand, result);
      cases.back().in_place = in_place;
      gemm.addend = Ref{};
      return gemm;
    };
    add_to(in_place ? "accumulate" : "addend", 32, DType::f16, DType::f32);
    Gemm& everything = add_to(in_place ? "accumulate_bias_relu" : "addend_bias_relu", 32, DType::f32, DType::f32);
    everything.relu = true;
    everything.bias = Ref{};
    Gemm& residual = add_to(in_place ? "half_bias_accumulate" : "half_bias_addend", 48, DType::f16, DType::f16);
    residual.transpose_b = true;
    residual.bias = Ref{};
    // cuBLASLt has no product of f32 operands with an f16 result: the rows kernel finishes it.
    add_to(in_place ? "float_to_half_accumulate" : "float_to_half_addend", 40, DType::f32, DType::f16).bias = Ref{};
  }
  add("half_bias", 128, 120, 400, DType::f16, DType::f16).transpose_b = true;
  cases.back().gemm.bias = Ref{};
  add("half_bias_of_odd_sizes", 127, 10, 333, DType::f16, DType::f16).transpose_b = true;
  cases.back().gemm.bias = Ref{};
  add("bfloat_bias", 128, 120, 400, DType::bf16, DType::bf16).transpose_b = true;
  cases.back().gemm.bias = Ref{};
  Gemm& wide = add("half_to_float_bias", 128, 120, 400, DType::f16, DType::f32);
  wide.transpose_b = true;
  wide.bias = Ref{};
  Gemm& single = add("float_bias", 128, 120, 400, DType::f32, DType::f32);
  single.transpose_b = true;
  single.bias = Ref{};
  Gemm& linear = add("half_bias_relu", 128, 120, 400, DType::f16, DType::f16);
  linear.transpose_b = linear.relu = true;
  linear.bias = Ref{};
  Gemm& mixed = add("half_with_a_float_bias", 128, 120, 400, DType::f16, DType::f16);
  mixed.transpose_b = true;
  mixed.bias = Ref{};
  mixed.bias_type = DType::f32;
  add("relu_alone", 128, 120, 64, DType::f16, DType::f16).relu = true;
  Gemm& batched = add("batched", 16, 24, 32, DType::f16, DType::f16);
  batched.batch = 5;
  batched.stride_a = 16 * 32;
  batched.stride_b = 32 * 24;
  batched.stride_c = 16 * 24;
  Gemm& shared = add("batched_with_one_b", 16, 24, 32, DType::f32, DType::f32);
  shared.batch = 3;
  shared.stride_a = 16 * 32;
  shared.stride_c = 16 * 24;
  cases.push_back(gemm_case("tf32", 128, 128, 256, DType::f32, DType::f32));
  cases.back().allow_tf32 = true;
  return cases;
}

Tensor random_tensor(TensorType type, uint64_t seed) {
  Tensor value(std::move(type));
  for (int64_t i = 0; i < value.type.element_count(); ++i) {
    value.set(i, 2 * philox_uniform(seed, 0, 0, static_cast<uint64_t>(i)) - 1);
  }
  return value;
}

// Relative error of one rounding.
double rounding(DType type) {
  return type == DType::f16 ? 0x1p-11 : type == DType::bf16 ? 0x1p-8 : type == DType::f32 ? 0x1p-24 : 0x1p-53;
}

// Operands lie in [-1, 1]: an accumulator in f32 is off by much less than `accumulation`, TF32 products are off by
// more.
double accumulation(DType operand, int64_t terms) {
  return (operand == DType::f64 ? 1e-14 : 4e-6) * std::sqrt(static_cast<double>(terms));
}

void expect_near(const Tensor& actual, const std::vector<double>& expected, double relative, double absolute) {
  ASSERT_EQ(actual.type.element_count(), std::ssize(expected));
  int reported = 0;
  for (size_t i = 0; i < expected.size() && reported < 5; ++i) {
    const double want = expected[i], got = actual.at(static_cast<int64_t>(i));
    if (std::abs(got - want) <= relative * std::abs(want) + absolute) continue;
    ADD_FAILURE() << "element " << i << ": expected " << want << ", found " << got;
    ++reported;
  }
}

class GpuGemmTest : public GpuTest, public testing::WithParamInterface<GemmCase> {};

TEST_P(GpuGemmTest, EqualsThePlainLoops) {
  Gemm gemm = GetParam().gemm;
  const auto count = [&](int64_t stride, int64_t matrix) { return (gemm.batch - 1) * stride + matrix; };
  const Tensor a = random_tensor({gemm.operand, {count(gemm.stride_a, gemm.m * gemm.k)}}, 1);
  const Tensor b = random_tensor({gemm.operand, {count(gemm.stride_b, gemm.k * gemm.n)}}, 2);
  const Tensor c = random_tensor({gemm.result, {count(gemm.stride_c, gemm.m * gemm.n)}}, 3);
  const Tensor bias = random_tensor({gemm.bias_type, {gemm.n}}, 4);
  const Tensor apart = random_tensor(c.type, 5);
  ModelBuilder builder;
  gemm.a = builder.state("a", a);
  gemm.b = builder.state("b", b);
  gemm.c = builder.state("c", c);
  if (gemm.bias) gemm.bias = builder.state("bias", bias);
  if (gemm.addend) gemm.addend = GetParam().in_place ? gemm.c : builder.state("addend", apart);
  builder.step(gemm);
  ExecutorOptions options;
  options.allow_tf32 = GetParam().allow_tf32;
  const auto executor = builder.make(options);
  run_step(*executor);
  const double products = options.allow_tf32 ? 0x1p-10 * std::sqrt(static_cast<double>(gemm.k)) : 0;
  // Some of the library's algorithms round the products before they add a bias or an addend, as convolutions below.
  const double staged = is_low(gemm.result) && (gemm.bias || gemm.addend)
                            ? rounding(gemm.result) * std::sqrt(static_cast<double>(gemm.k))
                            : 0;
  expect_near(executor->read_state("c"), reference_gemm(gemm, a, b, c, bias, GetParam().in_place ? c : apart),
              rounding(gemm.result), accumulation(gemm.operand, gemm.k) + products + staged);
}

INSTANTIATE_TEST_SUITE_P(Variants, GpuGemmTest, testing::ValuesIn(gemm_cases()),
                         [](const auto& test) { return test.param.name; });

// An overflow must reach the loss: a maximum with 0 would hide it.
TEST_F(GpuTest, AReluOfAProductKeepsNan) {
  for (const bool with_bias : {false, true}) {
    Gemm gemm = gemm_case("relu", 128, 512, 784, DType::f16, DType::f16).gemm;
    gemm.relu = true;
    gemm.stride_a = gemm.m * gemm.k, gemm.stride_b = gemm.k * gemm.n, gemm.stride_c = gemm.m * gemm.n;
    Tensor a = random_tensor({gemm.operand, {gemm.stride_a}}, 1);
    const Tensor b = random_tensor({gemm.operand, {gemm.stride_b}}, 2),
                 bias = random_tensor({gemm.result, {gemm.n}}, 3);
    a.set(5 * gemm.k + 3, std::nan(""));
    ModelBuilder builder;
    gemm.a = builder.state("a", a), gemm.b = builder.state("b", b);
    gemm.c = builder.state("c", Tensor({gemm.result, {gemm.stride_c}}));
    if (with_bias) gemm.bias = builder.state("bias", bias);
    builder.step(gemm);
    const auto executor = builder.make();
    run_step(*executor);
    const Tensor c = executor->read_state("c");
    for (int64_t row = 0; row < gemm.m; ++row)
      for (int64_t column = 0; column < gemm.n; ++column) {
        const double found = c.at(row * gemm.n + column);
        ASSERT_EQ(std::isnan(found), row == 5) << "row " << row << ", column " << column << ": " << found;
        ASSERT_FALSE(found < 0);
      }
  }
}

struct ConvolutionCase {
  const char* name;
  Convolution convolution;  // out_spatial is filled in
};

void fill_out_spatial(Convolution& c) {
  c.out_spatial.clear();
  for (size_t i = 0; i < c.spatial.size(); ++i) {
    const int64_t reach = c.dilations[i] * (c.window[i] - 1) + 1;
    c.out_spatial.push_back((c.spatial[i] + c.pads_begin[i] + c.pads_end[i] - reach) / c.strides[i] + 1);
  }
}

Convolution convolution_2d(int64_t in_channels, int64_t size, int64_t out_channels, int64_t window, int64_t pad,
                           int64_t stride, DType operand, DType result) {
  Convolution c;
  c.batch = 4;
  c.in_channels = in_channels;
  c.out_channels = out_channels;
  c.spatial = {size, size + 1};
  c.window = {window, window};
  c.pads_begin = c.pads_end = {pad, pad};
  c.strides = {stride, stride};
  c.dilations = {1, 1};
  c.operand = operand;
  c.result = c.bias_type = result;
  return c;
}

std::vector<ConvolutionCase> convolution_cases() {
  std::vector<ConvolutionCase> cases;
  // One name per kind: forward, data_grad, filter_grad.
  const auto add = [&](std::array<const char*, 3> names, Convolution c) {
    fill_out_spatial(c);
    for (size_t kind = 0; kind < names.size(); ++kind) {
      if (!names[kind]) continue;
      c.kind = static_cast<ConvolutionKind>(kind);
      cases.push_back({names[kind], c});
    }
  };
  const auto half = DType::f16, bfloat = DType::bf16, single = DType::f32;
  add({"half", "half_data_grad", "half_filter_grad"}, convolution_2d(32, 9, 64, 3, 1, 1, half, half));
  add({"bfloat", "bfloat_data_grad", "bfloat_filter_grad"}, convolution_2d(16, 9, 24, 3, 1, 2, bfloat, bfloat));
  add({"single", "single_data_grad", "single_filter_grad"}, convolution_2d(16, 9, 24, 3, 1, 2, single, single));
  add({"half_to_single", "half_data_grad_in_single", "half_filter_grad_in_single"},
      convolution_2d(16, 8, 16, 3, 0, 1, half, single));
  add({"one_channel", nullptr, "one_channel_filter_grad"}, convolution_2d(1, 28, 32, 5, 0, 1, half, half));
  add({"stem", "stem_data_grad", "stem_filter_grad"}, convolution_2d(3, 32, 64, 7, 3, 2, half, half));
  add({nullptr, nullptr, "stem_filter_grad_in_single"}, convolution_2d(3, 32, 64, 7, 3, 2, half, single));
  add({"stem_in_single", nullptr, "stem_in_single_filter_grad"}, convolution_2d(3, 16, 24, 7, 3, 2, single, single));
  add({"odd_channels", "odd_channels_data_grad", "odd_channels_filter_grad"},
      convolution_2d(13, 7, 10, 3, 1, 1, half, half));
  add({"pointwise", "pointwise_data_grad", "pointwise_filter_grad"}, convolution_2d(64, 5, 32, 1, 0, 1, half, half));

  add({"double_precision", "double_precision_data_grad", "double_precision_filter_grad"},
      convolution_2d(8, 6, 8, 3, 1, 1, DType::f64, DType::f64));
  add({"single_to_half", nullptr, nullptr}, convolution_2d(8, 6, 8, 3, 1, 1, single, half));

  Convolution groups = convolution_2d(32, 8, 64, 3, 1, 1, half, half);
  groups.groups = 4;
  add({"groups", "groups_data_grad", "groups_filter_grad"}, groups);
  Convolution dilated = convolution_2d(16, 12, 16, 3, 2, 1, half, half);
  dilated.dilations = {2, 2};
  add({"dilated", "dilated_data_grad", "dilated_filter_grad"}, dilated);
  Convolution asymmetric = convolution_2d(16, 8, 16, 3, 0, 2, half, half);
  asymmetric.pads_end = {1, 1};
  add({"asymmetric_pads", "asymmetric_pads_data_grad", "asymmetric_pads_filter_grad"}, asymmetric);

  Convolution line = convolution_2d(16, 8, 32, 3, 1, 1, half, half);
  for (Shape* shape : {&line.window, &line.pads_begin, &line.pads_end, &line.strides, &line.dilations})
    shape->resize(1);
  line.spatial = {40};
  add({"one_axis", "one_axis_data_grad", "one_axis_filter_grad"}, line);
  Convolution volume = convolution_2d(16, 6, 16, 3, 1, 1, half, half);
  for (Shape* shape : {&volume.window, &volume.pads_begin, &volume.pads_end, &volume.strides, &volume.dilations}) {
    shape->push_back(shape->front());
  }
  volume.spatial = {5, 6, 7};
  add({"three_axes", "three_axes_data_grad", "three_axes_filter_grad"}, volume);

  const auto add_epilogue = [&](const char* name, DType operand, DType result, DType bias, bool with_relu) {
    Convolution c = convolution_2d(32, 9, 40, 3, 1, 1, operand, result);
    c.bias = Ref{};
    c.bias_type = bias;
    c.relu = with_relu;
    add({name, nullptr, nullptr}, c);
  };
  add_epilogue("half_bias", half, half, half, false);
  add_epilogue("half_bias_relu", half, half, half, true);
  add_epilogue("half_float_bias_relu", half, half, single, true);
  add_epilogue("bfloat_bias_relu", bfloat, bfloat, bfloat, true);
  add_epilogue("single_bias_relu", single, single, single, true);
  add_epilogue("half_to_single_bias", half, single, single, false);
  Convolution relu = convolution_2d(32, 9, 40, 3, 1, 1, half, half);
  relu.relu = true;
  add({"relu_alone", nullptr, nullptr}, relu);
  Convolution first = convolution_2d(1, 28, 30, 5, 0, 1, half, half);
  first.bias = Ref{};
  first.relu = true;
  add({"one_channel_bias_relu", nullptr, nullptr}, first);
  return cases;
}

class GpuConvolutionTest : public GpuTest, public testing::WithParamInterface<ConvolutionCase> {};

TEST_P(GpuConvolutionTest, EqualsThePlainLoops) {
  Convolution c = GetParam().convolution;
  const auto type_of = [&](ConvolutionKind written_by) { return c.kind == written_by ? c.result : c.operand; };
  const auto count = [](const Shape& shape) { return TensorType{DType::u8, shape}.element_count(); };
  const int64_t taps = count(c.window) * c.in_channels / c.groups;
  const Tensor x =
      random_tensor({type_of(ConvolutionKind::data_grad), {c.batch * count(c.spatial) * c.in_channels}}, 1);
  const Tensor w = random_tensor({type_of(ConvolutionKind::filter_grad), {c.out_channels * taps}}, 2);
  const Tensor y =
      random_tensor({type_of(ConvolutionKind::forward), {c.batch * count(c.out_spatial) * c.out_channels}}, 3);
  const Tensor bias = random_tensor({c.bias_type, {c.out_channels}}, 4);
  ModelBuilder builder;
  c.x = builder.state("x", x);
  c.w = builder.state("w", w);
  c.y = builder.state("y", y);
  if (c.bias) c.bias = builder.state("bias", bias);
  builder.step(c);
  const auto executor = builder.make();
  run_step(*executor);
  const char* const result = c.kind == ConvolutionKind::forward     ? "y"
                             : c.kind == ConvolutionKind::data_grad ? "x"
                                                                    : "w";
  const int64_t terms = c.kind == ConvolutionKind::filter_grad ? c.batch * count(c.out_spatial)
                        : c.kind == ConvolutionKind::data_grad ? count(c.window) * c.out_channels / c.groups
                                                               : taps;
  // Where no engine writes the result or the epilogue asked for, it is rounded to the operands' type first.
  const double staged = is_low(c.operand) ? rounding(c.operand) * std::sqrt(static_cast<double>(terms)) : 0;
  const bool may_stage = c.result != c.operand || c.bias || c.relu;
  expect_near(executor->read_state(result), reference_convolution(c, x, w, y, bias), rounding(c.result),
              accumulation(c.operand, terms) + (may_stage ? staged : 0));
}

// cuDNN has an engine that gives 0 here.
TEST_F(GpuTest, AnOverflowBelowTheLeastHalfIsInfinite) {
  Convolution c = convolution_2d(4, 4, 4, 3, 0, 1, DType::f16, DType::f16);
  fill_out_spatial(c);
  const auto filled = [](int64_t elements, double value) {
    return Tensor::from_values({DType::f16, {elements}}, std::vector<double>(static_cast<size_t>(elements), value));
  };
  ModelBuilder builder;
  c.x = builder.state("x", filled(c.batch * 4 * 5 * 4, 0.5));
  c.w = builder.state("w", filled(4 * 3 * 3 * 4, -65504));
  c.y = builder.state("y", filled(c.batch * 2 * 3 * 4, 1));
  builder.step(c);
  const auto executor = builder.make();
  run_step(*executor);
  for (double v : executor->read_state("y").values()) EXPECT_EQ(v, -std::numeric_limits<double>::infinity());
}

INSTANTIATE_TEST_SUITE_P(Variants, GpuConvolutionTest, testing::ValuesIn(convolution_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_F(GpuTest, RepeatedConvolutionsAndGemmsOfOneProgramKeepTheirOperandsApart) {
  // y1 = conv(x), y2 = conv(y1), z = y2 @ v: same shapes, other places, one workspace.
  Convolution c = convolution_2d(3, 6, 3, 3, 1, 1, DType::f16, DType::f16);
  c.out_channels = 3;
  fill_out_spatial(c);
  const int64_t pixels = c.batch * 6 * 7;
  const Tensor x = random_tensor({DType::f16, {pixels * 3}}, 1), w = random_tensor({DType::f16, {3 * 9 * 3}}, 2);
  const Tensor v = random_tensor({DType::f16, {3 * 8}}, 3);
  ModelBuilder builder;
  const Ref xs = builder.state("x", x), ws = builder.state("w", w), vs = builder.state("v", v);
  const Ref y1 = builder.state("y1", Tensor({DType::f16, {pixels * 3}}));
  const Ref y2 = builder.state("y2", Tensor({DType::f16, {pixels * 3}}));
  const Ref z = builder.buffer(BufferKind::output, "z", {DType::f32, {pixels * 8}});
  c.w = ws;
  c.x = xs;
  c.y = y1;
  builder.step(c);
  c.x = y1;
  c.y = y2;
  builder.step(c);
  Gemm gemm = gemm_case("", pixels, 8, 3, DType::f16, DType::f32).gemm;
  gemm.a = y2;
  gemm.b = vs;
  gemm.c = z;
  builder.step(gemm);
  const auto executor = builder.make();
  for (int i = 0; i < 6; ++i) executor->begin_step(0), executor->submit();
  const Tensor none;
  const TensorType pixel_type{DType::f16, {pixels * 3}};
  const Tensor first = Tensor::from_values(pixel_type, reference_convolution(c, x, w, Tensor(pixel_type), none));
  const Tensor second = Tensor::from_values(pixel_type, reference_convolution(c, first, w, Tensor(pixel_type), none));
  const std::vector<double> last = reference_gemm(gemm, second, v, Tensor({DType::f32, {pixels * 8}}), none, none);
  while (const auto result = executor->poll(Wait::yes)) expect_near(result->outputs.at("z"), last, 0x1p-8, 0.1);
}

}  // namespace
}  // namespace halfstep
