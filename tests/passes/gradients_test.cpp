// Gradients of small models against central differences of the interpreter in double, with and without autocast:
// without rounding, casts change nothing.
#include "ir/text.h"
#include "passes/model/attach_loss.h"
#include "passes/model/choose_layouts.h"
#include "tests/central_differences.h"

namespace halfstep {
namespace {

void expect_model_gradients(const std::string& text, const LossOptions& loss = {}) {
  expect_gradients_in_all_types(choose_layouts(attach_loss(parse_graph(text), loss)));
}

TEST(Gradients, Perceptron) {
  expect_model_gradients(R"(
    graph mlp {
      %x = input() {name="x"} : f32[4,3]
      %w = parameter() {name="fc1.weight"} : f32[5,3]
      %b = parameter() {name="fc1.bias"} : f32[5]
      %v = parameter() {name="fc2.weight"} : f32[2,5]
      %0 = matmul(%x, %w) {transpose_b=1} @"fc1"
      %1 = reshape(%b) {shape=[1,5]} @"fc1"
      %2 = broadcast(%1) {shape=[4,5]} @"fc1"
      %3 = add(%0, %2) @"fc1"
      %4 = tanh(%3) @"act"
      %5 = matmul(%4, %v) {transpose_b=1} @"fc2"
      output "logits" = %5
    })");
}

TEST(Gradients, ConvolutionsWithBatchNormPoolingAndAResidual) {
  expect_model_gradients(R"(
    graph cnn {
      %x = input() {name="x"} : f32[2,1,6,6]
      %w = parameter() {name="c1.weight"} : f32[2,1,3,3]
      %s = parameter() {name="bn.weight"} : f32[2]
      %b = parameter() {name="bn.bias"} : f32[2]
      %m = state() {name="bn.running_mean"} : f32[2]
      %v = state() {name="bn.running_var"} : f32[2]
      %u = parameter() {name="c2.weight"} : f32[2,2,3,3]
      %f = parameter() {name="fc.weight"} : f32[3,18]
      %0 = transpose(%x) {permutation=[0,2,3,1]} @"c1"
      %1 = transpose(%w) {permutation=[0,2,3,1]} @"c1"
      %2 = convolution(%0, %1) {pads_begin=[1,1], pads_end=[1,1]} @"c1"
      %3 = transpose(%2) {permutation=[0,3,1,2]} @"c1"
      %4, %5, %6 = batch_norm(%3, %s, %b, %m, %v) {axis=1} @"bn"
      %7 = silu(%4) @"act"
      %8 = transpose(%7) {permutation=[0,2,3,1]} @"c2"
      %9 = transpose(%u) {permutation=[0,2,3,1]} @"c2"
      %10 = convolution(%8, %9) {pads_begin=[1,1], pads_end=[1,1]} @"c2"
      %11 = transpose(%10) {permutation=[0,3,1,2]} @"c2"
      %12 = add(%11, %7) @"sum"
      %13 = transpose(%12) {permutation=[0,2,3,1]} @"pool"
      %14, %15 = max_pool(%13) {window=[2,2], strides=[2,2]} @"pool"
      %16 = transpose(%14) {permutation=[0,3,1,2]} @"pool"
      %17 = reshape(%16) {shape=[2,18]} @"flatten"
      %18 = matmul(%17, %f) {transpose_b=1} @"fc"
      output "logits" = %18
    })");
}

TEST(Gradients, SharedWeightsConcatSliceAndDropout) {
  expect_model_gradients(R"(
    graph shared {
      %x = input() {name="x"} : f32[3,4]
      %seed = input() {name="seed", role="step_input"} : i64[]
      %it = input() {name="iteration", role="step_input"} : i32[]
      %w = parameter() {name="w"} : f32[4,4]
      %g = parameter() {name="g"} : f32[1,4]
      %0 = matmul(%x, %w) @"a"
      %1 = softmax(%0) {axis=1} @"softmax"
      %2 = matmul(%1, %w) @"b"
      %3 = broadcast(%g) {shape=[3,4]} @"gain"
      %4 = mul(%2, %3) @"gain"
      %5 = concat(%4, %1) {axis=1} @"cat"
      %6 = dropout(%5, %seed, %it) {ratio=0.25, site=3} @"drop"
      %7 = slice(%6) {starts=[0,1], limits=[3,7], steps=[1,2]} @"slice"
      output "y" = %7
    })",
                         {{.kind = "mean_squared_error", .output = "y"}});
}

TEST(Gradients, OfSeveralWeightedLosses) {
  LossOptions options;
  options.terms = {{.name = "", .weight = 0.75, .loss = {.output = "logits"}},
                   {.name = "", .weight = -2, .loss = {.kind = "mean_squared_error", .output = "boxes"}},
                   {.name = "own", .weight = 0.5, .loss = {.kind = "from_graph", .output = "loss"}},
                   {.name = "watched", .weight = 0, .loss = {.output = "logits"}}};
  options.terms[0].loss.ignore_index = 1;
  expect_model_gradients(R"(
    graph heads {
      %x = input() {name="x"} : f32[4,3]
      %w = parameter() {name="trunk"} : f32[5,3]
      %c = parameter() {name="class"} : f32[3,5]
      %b = parameter() {name="box"} : f32[2,5]
      %0 = matmul(%x, %w) {transpose_b=1} @"trunk"
      %1 = tanh(%0) @"trunk"
      %2 = matmul(%1, %c) {transpose_b=1} @"class"
      %3 = matmul(%1, %b) {transpose_b=1} @"box"
      %4 = mul(%1, %1) @"own"
      %5 = reduce_sum(%4) {axes=[1]} @"own"
      %6 = reshape(%5) {shape=[4]} @"own"
      output "logits" = %2
      output "boxes" = %3
      output "loss" = %6
    })",
                         options);
}

// An output with `columns` numbers a sample; labels as every number from 0 to 1.
void expect_gradients_of(const OutputLoss& loss, const LeafRange& range = {}, const char* columns = "3") {
  LossOptions options;
  static_cast<OutputLoss&>(options) = loss;
  std::string text = R"(
    graph head {
      %x = input() {name="x"} : f32[4,5]
      %w = parameter() {name="w"} : f32[COLUMNS,5]
      %0 = matmul(%x, %w) {transpose_b=1} @"fc"
      %1 = LAST
      output "y" = %1
    })";
  const bool logarithms = function_of(loss).scores == LossFunction::log_likelihood;
  const auto put = [&](const std::string& word, const std::string& by) {
    text.replace(text.find(word), word.size(), by);
  };
  put("COLUMNS", columns);
  put("LAST", logarithms ? "log_softmax(%0) {axis=1} @\"last\"" : "tanh(%0) @\"last\"");
  SCOPED_TRACE(loss.kind);
  expect_gradients_in_all_types(choose_layouts(attach_loss(parse_graph(text), options)), range);
}

TEST(Gradients, OfEveryLoss) {
  expect_gradients_of({.kind = "bce_with_logits"});
  expect_gradients_of({.kind = "bce_with_logits"}, {}, "1");
  expect_gradients_of(
      {.kind = "bce_with_logits", .parameters = {{"pos_weight", {2, 0, 0.5}}, {"class_weights", {1, 3, 0.25}}}});
  expect_gradients_of({.kind = "bce_with_logits", .parameters = {{"focal_gamma", {2}}, {"focal_alpha", {0.25}}}});
  expect_gradients_of({.kind = "softmax_cross_entropy", .parameters = {{"class_weights", {1, 3, 0.25}}}});
  expect_gradients_of({.kind = "softmax_cross_entropy",
                       .ignore_index = 1,
                       .parameters = {{"class_weights", {1, 3, 0.25}}, {"label_smoothing", {0.25}}}});
  expect_gradients_of(
      {.kind = "softmax_cross_entropy", .parameters = {{"class_weights", {1, 3, 0.25}}, {"focal_gamma", {1.5}}}});
  expect_gradients_of({.kind = "nll", .ignore_index = 0, .parameters = {{"class_weights", {1, 3, 0.25}}}});
  expect_gradients_of({.kind = "mean_squared_error"});
  expect_gradients_of({.kind = "l1"});
  expect_gradients_of({.kind = "huber", .parameters = {{"delta", {0.4}}}});
  expect_gradients_of({.kind = "smooth_l1", .parameters = {{"beta", {0.4}}}});
  expect_gradients_of({.kind = "kl_div"}, {0.125, 1});
  expect_gradients_of({.kind = "kl_div", .parameters = {{"log_target", {1}}}});
}

TEST(Gradients, IgnoredLabelsHaveNone) {
  LossOptions options;
  options.ignore_index = 1;
  expect_model_gradients(R"(
    graph dense {
      %x = input() {name="x"} : f32[2,3,4]
      %w = parameter() {name="w"} : f32[1,3,4]
      %0 = broadcast(%w) {shape=[2,3,4]} @"w"
      %1 = mul(%x, %0) @"w"
      output "logits" = %1
    })",
                         options);
}

}  // namespace
}  // namespace halfstep
