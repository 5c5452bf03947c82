// Every operator's import against values computed by hand.
#include "frontend/operators.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "operator_cases.h"

namespace halfstep::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNaN = std::nan("");

onnx::GraphProto branch(double value) {
  onnx::GraphProto graph;
  *graph.add_node() = node_proto("Constant", {}, {"branch_result"}, {{"value_float", value}});
  graph.add_output()->set_name("branch_result");
  return graph;
}

double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

const Tensor kSquare = ramp({1, 1, 3, 3}, 1);  // 1 2 3 / 4 5 6 / 7 8 9
const double kE = std::exp(1.0);

std::vector<Case> cases() {
  return {
      {"Abs", 13, {x({2}, {-1, 2})}, {}, {{1, 2}}},
      {"Abs", 13, {x(ints({2}, {-3, 2}))}, {}, {{3, 2}}},
      {"Add", 7, {x({2, 1}, {1, 2}), x({3}, {10, 20, 30})}, {}, {{11, 21, 31, 12, 22, 32}}},
      {"AffineGrid",
       20,
       {x({1, 2, 3}, {1, 0, 10, 0, 1, 20}), known(ints({4}, {1, 1, 1, 2}))},
       {{"align_corners", int64_t{1}}},
       {{9, 20, 11, 20}}},
      {"Add", 7, {x({2}, {1, 2}), bools({2}, {1, 0})}, {}, {{1, -kInfinity}}},  // as an attention's mask
      {"And", 7, {bools({2}, {1, 1}), bools({2}, {0, 1})}, {}, {{0, 1}}},
      {"ArgMax", 13, {x({2, 3}, {1, 5, 5, 9, 2, 3})}, {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}}, {{1, 0}}},
      {"AveragePool", 11, {x(kSquare)}, {{"kernel_shape", Ints{2, 2}}}, {{3, 4, 6, 7}}},
      {"AveragePool",
       11,
       {x(kSquare)},
       {{"kernel_shape", Ints{2, 2}},
        {"strides", Ints{2, 2}},
        {"pads", Ints{1, 1, 0, 0}},
        {"count_include_pad", int64_t{1}}},
       {{0.25, 1.25, 2.75, 7}}},
      // ceil_mode: the padding counts, what hangs over it does not.
      {"AveragePool",
       11,
       {x(kSquare)},
       {{"kernel_shape", Ints{2, 2}},
        {"strides", Ints{2, 2}},
        {"ceil_mode", int64_t{1}},
        {"count_include_pad", int64_t{1}}},
       {{3, 4.5, 7.5, 9}}},
      {"AveragePool", 19, {x(kSquare)}, {{"kernel_shape", Ints{2, 2}}, {"dilations", Ints{2, 2}}}, {{5}}},
      {"AveragePool",
       19,
       {x({1, 1, 3}, {2, 4, 6})},
       {{"kernel_shape", Ints{2}},
        {"strides", Ints{2}},
        {"pads", Ints{1, 0}},
        {"ceil_mode", int64_t{1}},
        {"count_include_pad", int64_t{1}}},
       {{1, 5}}},
      {"BatchNormalization",
       15,
       {x({1, 2, 2}, {1, 3, 5, 9}), x({2}, {1, 2}), x({2}, {0, 1}), x({2}, {1, 5}), x({2}, {4, 16})},
       {{"epsilon", 0.0}},
       {{0, 1, 1, 3}}},
      {"BatchNormalization",
       15,
       {x({1, 2, 2}, {1, 3, 5, 9}), x({2}, {1, 2}), x({2}, {0, 1}), x({2}, {1, 5}), x({2}, {4, 16})},
       {{"epsilon", 0.0}, {"training_mode", int64_t{1}}, {"momentum", 0.75}},
       {{-1, 1, -1, 3}, {1.25, 5.5}, {3.25, 13}}},
      {"Bernoulli", 15, {x({2}, {0, 1})}, {{"dtype", int64_t{onnx::TensorProto::INT64}}}, {{0, 1}}},
      {"Cast", 13, {x({3}, {-1.5, 0, 2.5})}, {{"to", int64_t{onnx::TensorProto::INT64}}}, {{-1, 0, 2}}},
      {"Cast", 13, {x({3}, {-1.5, 0, 2.5})}, {{"to", int64_t{onnx::TensorProto::BOOL}}}, {{1, 0, 1}}},
      {"CastLike", 15, {x({2}, {1.5, -2}), x(ints({1}, {0}))}, {}, {{1, -2}}},
      {"Ceil", 13, {x({2}, {1.2, -1.2})}, {}, {{2, -1}}},
      {"CenterCropPad", 18, {x(ramp({2, 5})), known(ints({2}, {3, 2}))}, {}, {{1, 2, 6, 7, 0, 0}}},
      {"Clip", 7, {x({3}, {-5, 0.5, 5})}, {{"min", -1.0}, {"max", 1.0}}, {{-1, 0.5, 1}}},
      {"Clip", 13, {x({3}, {-5, 0.5, 5}), absent(), known(floats({}, {1}))}, {}, {{-5, 0.5, 1}}},
      {"Clip", 13, {x({2}, {-5, 5}), known(floats({}, {0}))}, {}, {{0, 5}}},
      {"Col2Im", 18, {x({1, 2, 2}, {1, 2, 3, 4}), known(ints({1}, {3})), known(ints({1}, {2}))}, {}, {{1, 5, 4}}},
      {"Concat", 13, {x({1, 2}, {1, 2}), x({1, 1}, {3})}, {{"axis", int64_t{-1}}}, {{1, 2, 3}}},
      {"Constant", 13, {}, {{"value_ints", Ints{3, 4}}}, {{3, 4}}},
      {"ConstantOfShape", 9, {known(ints({2}, {1, 2}))}, {{"value", floats({1}, {7})}}, {{7, 7}}},
      {"Conv",
       11,
       {x(kSquare), known(floats({1, 1, 2, 2}, {1, 0, 0, 1})), known(floats({1}, {10}))},
       {},
       {{16, 18, 22, 24}}},
      {"Conv",
       11,
       {x({1, 2, 3}, {1, 2, 3, 4, 5, 6}), known(floats({2, 1, 2}, {1, 1, 1, -1}))},
       {{"group", int64_t{2}}, {"pads", Ints{1, 0}}},
       {{1, 3, 5, -4, -1, -1}}},
      {"Conv",
       11,
       {x(kSquare), known(ramp({1, 1, 2, 2}, 1, 0))},
       {{"auto_pad", std::string("SAME_UPPER")}},
       {{12, 16, 9, 24, 28, 15, 15, 17, 9}}},
      {"Conv", 11, {x(kSquare), known(ramp({1, 1, 2, 2}, 1, 0))}, {{"dilations", Ints{2, 2}}}, {{20}}},
      {"ConvTranspose",
       11,
       {x({1, 1, 2}, {1, 2}), known(floats({1, 1, 3}, {1, 10, 100})), known(floats({1}, {1000}))},
       {{"strides", Ints{2}}, {"pads", Ints{1, 0}}, {"output_padding", Ints{1}}},
       {{1010, 1102, 1020, 1200, 1000}}},
      {"ConvTranspose",
       11,
       {x({1, 1, 2}, {1, 2}), known(floats({1, 1, 2}, {1, 10}))},
       {{"output_shape", Ints{5}}, {"strides", Ints{2}}},
       {{1, 10, 2, 20, 0}}},
      {"ConvTranspose",
       11,
       {x({1, 1, 2}, {1, 2}), known(floats({1, 1, 3}, {1, 10, 100}))},
       {{"auto_pad", std::string("SAME_LOWER")}, {"strides", Ints{2}}},
       {{10, 102, 20, 200}}},
      {"Cos", 7, {x({1}, {0})}, {}, {{1}}},
      {"Div", 7, {x({2}, {1, 3}), x({1}, {2})}, {}, {{0.5, 1.5}}},
      {"Div", 7, {x(ints({2}, {7, -7})), x(ints({1}, {2}))}, {}, {{3, -3}}},
      {"Dropout", 7, {x({2}, {1, 2})}, {{"ratio", 0.5}}, {{1, 2}}},
      {"Dropout", 13, {x({2}, {1, 2})}, {}, {{1, 2}, {1, 1}}},
      {"Elu", 7, {x({2}, {-1, 100})}, {{"alpha", 2.0}}, {{2 * (std::exp(-1.0) - 1), 100}}},
      {"Equal", 11, {x({2}, {1, 2}), x({2}, {1, 3})}, {}, {{1, 0}}},
      {"Erf", 13, {x({1}, {1})}, {}, {{std::erf(1.0)}}},
      {"Exp", 13, {x({1}, {1})}, {}, {{kE}}},
      {"Expand", 13, {x({2, 1}, {1, 2}), known(ints({1}, {2}))}, {}, {{1, 1, 2, 2}}},
      {"Flatten", 13, {x(ramp({1, 2, 2}))}, {{"axis", int64_t{-1}}}, {{0, 1, 2, 3}}},
      {"Floor", 13, {x({2}, {1.7, -1.2})}, {}, {{1, -2}}},
      {"Gather", 13, {x({3, 2}, {1, 2, 3, 4, 5, 6}), x(ints({2}, {-1, 0}))}, {}, {{5, 6, 1, 2}}},
      {"Gather", 13, {x({2, 3}, {1, 2, 3, 4, 5, 6}), known(ints({}, {-2}))}, {{"axis", int64_t{1}}}, {{2, 5}}},
      {"Gather", 13, {x({3}, {1, 2, 3}), known(ints({2}, {2, 0}))}, {}, {{3, 1}}},
      // Two steps of one hidden value, every input weight 1; Y and Y_h (and Y_c).
      {"GRU",
       14,
       {x({2, 1, 1}, {1, 2}), known(floats({1, 3, 1}, {1, 1, 1})), known(floats({1, 3, 1}, {0, 0, 0}))},
       {},
       {{(1 - sigmoid(1)) * std::tanh(1),
         (1 - sigmoid(2)) * std::tanh(2) + sigmoid(2) * (1 - sigmoid(1)) * std::tanh(1)},
        {(1 - sigmoid(2)) * std::tanh(2) + sigmoid(2) * (1 - sigmoid(1)) * std::tanh(1)}}},
      {"LSTM",
       14,
       {x({2, 1, 1}, {1, 2}), known(floats({1, 4, 1}, {1, 1, 1, 1})), known(floats({1, 4, 1}, {0, 0, 0, 0})), absent(),
        x(Tensor::from_values({DType::i32, {1}}, std::vector<double>{1}))},
       {},
       {{sigmoid(1) * std::tanh(sigmoid(1) * std::tanh(1)), 0},
        {sigmoid(1) * std::tanh(sigmoid(1) * std::tanh(1))},
        {sigmoid(1) * std::tanh(1)}}},
      {"RNN",
       14,
       {x({1, 2, 1}, {1, 2}), known(floats({1, 1, 1}, {1})), known(floats({1, 1, 1}, {0.5})),
        known(floats({1, 2}, {0.25, -0.5})), absent(), x({1, 1, 1}, {2})},
       {{"layout", int64_t{1}}, {"direction", std::string("reverse")}, {"clip", 1.5}},
       {{std::tanh(0.75 + 0.5 * std::tanh(1.5)), std::tanh(1.5)}, {std::tanh(0.75 + 0.5 * std::tanh(1.5))}}},
      {"Gelu", 20, {x({1}, {1})}, {}, {{0.5 * (1 + std::erf(std::sqrt(0.5)))}}},
      {"Gelu", 20, {x({1}, {1})}, {{"approximate", std::string("tanh")}}, {{0.841192}}},
      {"Gemm",
       13,
       {x({2, 2}, {1, 2, 3, 4}), known(floats({2, 2}, {1, 1, 0, 1})), known(floats({2}, {10, 20}))},
       {{"transA", int64_t{1}}, {"transB", int64_t{1}}, {"alpha", 2.0}, {"beta", 0.5}},
       {{2 * 4 + 5, 2 * 3 + 10, 2 * 6 + 5, 2 * 4 + 10}}},
      {"GlobalAveragePool", 7, {x(kSquare)}, {}, {{5}}},
      {"GlobalLpPool", 7, {x({1, 1, 2}, {3, -4})}, {}, {{5}}},
      {"GlobalMaxPool", 7, {x(kSquare)}, {}, {{9}}},
      {"Greater", 9, {x({2}, {1, 2}), x({1}, {1})}, {}, {{0, 1}}},
      {"GreaterOrEqual", 12, {x({2}, {1, 0}), x({1}, {1})}, {}, {{1, 0}}},
      {"GridSample",
       16,
       {x({1, 1, 2, 2}, {1, 2, 3, 4}), x({1, 1, 2, 2}, {0, 0, -1, 1})},
       {{"align_corners", int64_t{1}}},
       {{2.5, 3}}},
      {"GridSample",
       20,
       {x({1, 1, 2}, {1, 2}), x({1, 3, 1}, {-0.5, 0.5, 3})},
       {{"mode", std::string("nearest")}},
       {{1, 2, 0}}},
      {"GroupNormalization",
       18,
       {x({1, 2, 2}, {1, 3, 5, 9}), x({2}, {1, 2}), x({2}, {0, 1})},
       {{"num_groups", int64_t{2}}, {"epsilon", 0.0}},
       {{-1, 1, -1, 3}}},
      {"GroupNormalization",
       21,
       {x({1, 2, 1}, {1, 3}), x({2}, {1, 2}), x({2}, {0, 1})},
       {{"num_groups", int64_t{1}}, {"epsilon", 0.0}},
       {{-1, 3}}},
      {"HardSigmoid", 7, {x({3}, {-10, 1, 10})}, {}, {{0, 0.7, 1}}},
      {"HardSwish", 14, {x({3}, {-10, 3, 1.5})}, {}, {{0, 3, 1.125}}},
      {"Identity", 13, {x({1}, {4})}, {}, {{4}}},
      {"If",
       13,
       {known(Tensor::scalar(DType::boolean, 0))},
       {{"then_branch", branch(1)}, {"else_branch", branch(2)}},
       {{2}}},
      {"InstanceNormalization",
       7,
       {x({1, 2, 2}, {1, 3, 5, 9}), x({2}, {1, 2}), x({2}, {0, 1})},
       {{"epsilon", 0.0}},
       {{-1, 1, -1, 3}}},
      {"IsInf", 10, {x({3}, {-kInfinity, 1, kInfinity})}, {{"detect_negative", int64_t{0}}}, {{0, 0, 1}}},
      {"IsNaN", 13, {x({2}, {kNaN, 1})}, {}, {{1, 0}}},
      {"LRN",
       13,
       {x({1, 3, 1}, {1, 2, 3})},
       {{"size", int64_t{2}}, {"alpha", 2.0}, {"beta", 1.0}, {"bias", 1.0}},
       {{1.0 / 6, 2.0 / 14, 3.0 / 10}}},
      {"LayerNormalization",
       17,
       {x({2, 2}, {1, 3, 5, 9}), x({2}, {1, 2}), x({2}, {0, 1})},
       {{"epsilon", 0.0}},
       {{-1, 3, -1, 3}, {2, 7}, {1, 0.5}}},
      {"LeakyRelu", 7, {x({2}, {-2, 2})}, {{"alpha", 0.25}}, {{-0.5, 2}}},
      {"Less", 9, {x({2}, {0, 1}), x({1}, {1})}, {}, {{1, 0}}},
      {"LessOrEqual", 12, {x({2}, {1, 2}), x({1}, {1})}, {}, {{1, 0}}},
      {"Log", 13, {x({1}, {kE})}, {}, {{1}}},
      {"LogSoftmax", 13, {x({1, 2}, {0, 0})}, {}, {{-std::log(2.0), -std::log(2.0)}}},
      {"MatMul", 13, {x({2}, {1, 2}), x({2, 2}, {1, 2, 3, 4})}, {}, {{7, 10}}},
      {"MatMul", 13, {x({2, 2}, {1, 2, 3, 4}), x({2}, {1, 1})}, {}, {{3, 7}}},
      {"MatMul", 13, {x({2, 1, 2}, {1, 2, 3, 4}), x({2, 1}, {1, 1})}, {}, {{3, 7}}},
      {"MatMul", 13, {x({2, 1, 1, 2}, {1, 2, 3, 4}), x({2, 2, 1}, {1, 1, 1, -1})}, {}, {{3, -1, 7, -1}}},
      {"LpPool", 18, {x({1, 1, 3}, {3, -4, 0})}, {{"kernel_shape", Ints{2}}}, {{5, 4}}},
      {"LpPool", 18, {x({1, 1, 3}, {3, -4, 0})}, {{"kernel_shape", Ints{2}}, {"p", int64_t{1}}}, {{7, 4}}},
      {"Max", 13, {x({2}, {1, 5}), x({1}, {3}), x({1}, {2})}, {}, {{3, 5}}},
      {"MaxPool", 12, {x(kSquare)}, {{"kernel_shape", Ints{2, 2}}, {"dilations", Ints{2, 2}}}, {{9}}},
      {"MaxPool",
       12,
       {x(kSquare)},
       {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}, {"ceil_mode", int64_t{1}}},
       {{5, 6, 8, 9}}},
      {"MaxPool",
       12,
       {x(kSquare)},
       {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}, {"auto_pad", std::string("SAME_LOWER")}},
       {{1, 3, 7, 9}}},
      {"MaxPool",
       12,
       {x({1, 2, 2, 2}, {1, 5, 3, 2, 9, 8, 7, 6})},
       {{"kernel_shape", Ints{2, 2}}, {"storage_order", int64_t{1}}},
       {{5, 9}, {2, 4}}},
      {"MaxPool",
       12,
       {x(ramp({1, 1, 18, 19}))},
       {{"kernel_shape", Ints{18, 18}}, {"strides", Ints{1, 1}}},
       {{17 * 19 + 17, 17 * 19 + 18}}},
      {"MaxUnpool",
       11,
       {x({1, 1, 2}, {5, 6}), x(ints({1, 1, 2}, {1, 2}))},
       {{"kernel_shape", Ints{2}}, {"strides", Ints{2}}},
       {{0, 5, 6, 0}}},
      {"Mean", 13, {x({1}, {1}), x({1}, {4})}, {}, {{2.5}}},
      {"Min", 13, {x({2}, {1, 5}), x({1}, {3})}, {}, {{1, 3}}},
      {"Mod", 13, {x(ints({2}, {-7, 7})), x(ints({2}, {3, -3}))}, {}, {{2, -2}}},
      {"Mod", 13, {x({2}, {-7.5, 7.5}), x({1}, {2})}, {{"fmod", int64_t{1}}}, {{-1.5, 1.5}}},
      {"Mul", 7, {x({2}, {1, 3}), x({1}, {2})}, {}, {{2, 6}}},
      {"Multinomial", 7, {x({1, 3}, {-1000, 0, -1000})}, {{"sample_size", int64_t{2}}}, {{1, 1}}},
      {"Neg", 13, {x({2}, {1, -3})}, {}, {{-1, 3}}},
      {"Neg", 13, {x(ints({2}, {1, -3}))}, {}, {{-1, 3}}},
      {"NegativeLogLikelihoodLoss",
       13,
       {x({2, 2}, {-1, -2, -3, -4}), x(ints({2}, {1, 0})), x({2}, {3, 1})},
       {},
       {{(1 * 2 + 3 * 3) / 4.0}}},
      {"Not", 7, {bools({2}, {0, 1})}, {}, {{1, 0}}},
      {"Or", 7, {bools({2}, {0, 0}), bools({2}, {0, 1})}, {}, {{0, 1}}},
      {"PRelu", 9, {x({1, 2, 1}, {-1, -1}), known(floats({2, 1}, {0.5, 2}))}, {}, {{-0.5, -2}}},
      {"Pad", 7, {x({2}, {1, 2})}, {{"pads", Ints{1, -1}}, {"value", 9.0}}, {{9, 1}}},
      {"Pad",
       18,
       {x({1, 2}, {1, 2}), known(ints({2}, {0, 1})), known(floats({}, {5})), known(ints({1}, {1}))},
       {},
       {{1, 2, 5}}},
      {"Pad", 13, {x({3}, {1, 2, 3}), known(ints({2}, {2, 1}))}, {{"mode", std::string("edge")}}, {{1, 1, 1, 2, 3, 3}}},
      {"Pad",
       13,
       {x({3}, {1, 2, 3}), known(ints({2}, {3, -1}))},
       {{"mode", std::string("reflect")}},
       {{2, 1, 2, 1, 2}}},
      {"Pad",
       19,
       {x(ints({3}, {1, 2, 3})), known(ints({2}, {1, 2}))},
       {{"mode", std::string("wrap")}},
       {{3, 1, 2, 3, 1, 2}}},
      {"Pow", 13, {x({2}, {-3, 2}), known(floats({}, {2}))}, {}, {{9, 4}}},
      {"Pow", 13, {x({2}, {4, 9}), known(floats({}, {0.5}))}, {}, {{2, 3}}},
      {"Pow", 13, {x({2}, {2, 3}), x({2}, {3, 2})}, {}, {{8, 9}}},
      {"Pow", 13, {x(ints({2}, {2, 3})), x(ints({2}, {3, 2}))}, {}, {{8, 9}}},
      {"RMSNormalization",
       23,
       {x({1, 2}, {3, 4}), x({2}, {1, 2})},
       {{"epsilon", 0.0}},
       {{3 / std::sqrt(12.5), 8 / std::sqrt(12.5)}}},
      // Numbers are drawn, but from an empty range.
      {"RandomNormal", 7, {}, {{"shape", Ints{2}}, {"scale", 0.0}, {"mean", 3.0}}, {{3, 3}}},
      {"RandomNormalLike", 7, {x({2}, {0, 0})}, {{"scale", 0.0}}, {{0, 0}}},
      {"RandomUniform", 7, {}, {{"shape", Ints{2}}, {"low", 2.0}, {"high", 2.0}}, {{2, 2}}},
      {"RandomUniformLike", 7, {x({2}, {0, 0})}, {{"low", 2.0}, {"high", 2.0}}, {{2, 2}}},
      {"Range", 11, {known(ints({}, {5})), known(ints({}, {0})), known(ints({}, {-2}))}, {}, {{5, 3, 1}}},
      {"Reciprocal", 13, {x({1}, {4})}, {}, {{0.25}}},
      {"ReduceL1", 13, {x({2}, {3, -4})}, {{"keepdims", int64_t{0}}}, {{7}}},
      {"ReduceL2", 13, {x({2}, {3, -4})}, {{"keepdims", int64_t{0}}}, {{5}}},
      {"ReduceLogSum", 13, {x({2}, {1, 3})}, {}, {{std::log(4.0)}}},
      {"ReduceLogSumExp", 13, {x({2}, {1000, 1000})}, {}, {{1000 + std::log(2.0)}}},
      {"ReduceMax", 13, {x({2, 2}, {1, 2, 3, 0})}, {{"axes", Ints{-1}}}, {{2, 3}}},
      {"ReduceMean", 18, {x({2, 2}, {1, 2, 3, 0}), known(ints({1}, {0}))}, {}, {{2, 1}}},
      {"ReduceMean", 13, {x({2, 2}, {1, 2, 3, 0})}, {}, {{1.5}}},
      {"ReduceMin", 18, {x({2, 2}, {1, 2, 3, 0}), known(ints({1}, {1}))}, {}, {{1, 0}}},
      {"ReduceSum", 13, {x({2, 2}, {1, 2, 3, 0}), known(ints({1}, {1}))}, {{"keepdims", int64_t{0}}}, {{3, 3}}},
      {"ReduceSum", 13, {x({2}, {1, 2})}, {{"noop_with_empty_axes", int64_t{1}}}, {{1, 2}}},
      {"ReduceSumSquare", 13, {x({2}, {1, 2})}, {}, {{5}}},
      {"Relu", 13, {x({2}, {-1, 2})}, {}, {{0, 2}}},
      {"Reshape", 13, {x(ramp({2, 3})), known(ints({2}, {0, -1}))}, {}, {{0, 1, 2, 3, 4, 5}}},
      {"Resize", 10, {x({1, 1, 2}, {1, 2}), known(floats({3}, {1, 1, 2}))}, {}, {{1, 1, 2, 2}}},
      {"Resize",
       13,
       {x({1, 1, 2}, {0, 4}), absent(), known(floats({3}, {1, 1, 2}))},
       {{"mode", std::string("linear")}},
       {{0, 1, 3, 4}}},
      {"Resize",
       18,
       {x({1, 4}, {0, 4, 8, 12}), absent(), absent(), known(ints({1}, {2}))},
       {{"mode", std::string("linear")}, {"antialias", int64_t{1}}, {"axes", Ints{-1}}},
       {{2.5, 9.5}}},
      {"Round", 11, {x({3}, {0.5, 1.5, -1.2})}, {}, {{0, 2, -1}}},
      {"Shape", 15, {x(ramp({2, 3, 4}))}, {{"start", int64_t{-2}}, {"end", int64_t{2}}}, {{3}}},
      {"Sigmoid", 13, {x({1}, {0})}, {}, {{0.5}}},
      {"Sign", 13, {x({3}, {-2, 0, 3})}, {}, {{-1, 0, 1}}},
      {"Sin", 7, {x({1}, {0})}, {}, {{0}}},
      {"Size", 13, {x(ramp({2, 3}))}, {}, {{6}}},
      {"Slice", 7, {x(ramp({5}))}, {{"starts", Ints{1}}, {"ends", Ints{-1}}}, {{1, 2, 3}}},
      {"Slice",
       13,
       {x(ramp({5})), known(ints({1}, {-1})), known(ints({1}, {-100})), absent(), known(ints({1}, {-2}))},
       {},
       {{4, 2, 0}}},
      {"Slice",
       13,
       {x(ramp({2, 3})), known(ints({1}, {1})), known(ints({1}, {9e18})), known(ints({1}, {-1}))},
       {},
       {{1, 2, 4, 5}}},
      // Before opset 13 the trailing axes are normalised together.
      {"Softmax", 11, {x({1, 2, 2}, {0, 0, 0, 0})}, {{"axis", int64_t{1}}}, {{0.25, 0.25, 0.25, 0.25}}},
      {"Softmax", 13, {x({1, 2, 2}, {0, 0, 0, 0})}, {{"axis", int64_t{1}}}, {{0.5, 0.5, 0.5, 0.5}}},
      {"SoftmaxCrossEntropyLoss",
       13,
       {x({2, 2}, {0, 0, 0, 0}), x(ints({2}, {1, 7}))},
       {{"ignore_index", int64_t{7}}},
       {{std::log(2.0)}}},
      {"SoftmaxCrossEntropyLoss",
       13,
       {x({1, 2, 2}, {0, 1, 0, 1}), x(ints({1, 2}, {0, 1}))},
       {{"reduction", std::string("none")}},
       {{std::log(2.0), std::log(2.0)}}},
      {"Softplus", 7, {x({2}, {0, 1000})}, {}, {{std::log(2.0), 1000}}},
      {"Split", 11, {x(ramp({4}))}, {}, {{0, 1}, {2, 3}}},
      {"Split", 13, {x(ramp({3})), known(ints({2}, {1, 2}))}, {}, {{0}, {1, 2}}},
      {"Split", 18, {x(ramp({3}))}, {{"num_outputs", int64_t{2}}}, {{0, 1}, {2}}},
      {"Sqrt", 13, {x({1}, {9})}, {}, {{3}}},
      {"Squeeze", 11, {x(ramp({1, 2, 1}))}, {{"axes", Ints{-1}}}, {{0, 1}}},
      {"Squeeze", 13, {x(ramp({1, 2, 1}))}, {}, {{0, 1}}},
      {"Sub", 7, {x({2}, {1, 3}), x({1}, {2})}, {}, {{-1, 1}}},
      {"Sum", 13, {x({1}, {1}), x({1}, {2}), x({2}, {3, 4})}, {}, {{6, 7}}},
      {"Tanh", 13, {x({1}, {1})}, {}, {{std::tanh(1.0)}}},
      {"Tile", 13, {x({2}, {1, 2}), known(ints({1}, {2}))}, {}, {{1, 2, 1, 2}}},
      {"Transpose", 13, {x(ramp({2, 3}))}, {}, {{0, 3, 1, 4, 2, 5}}},
      {"Unsqueeze", 13, {x({2}, {1, 2}), known(ints({1}, {-1}))}, {}, {{1, 2}}},
      {"Upsample", 7, {x({1, 1, 2}, {1, 2})}, {{"scales", std::vector<double>{1, 1, 2}}}, {{1, 1, 2, 2}}},
      {"Where", 9, {bools({2}, {1, 0}), x({1}, {5}), x({2}, {1, 2})}, {}, {{5, 2}}},
      {"Xor", 7, {bools({2}, {1, 1}), bools({2}, {0, 1})}, {}, {{1, 0}}},
  };
}

TestModel one_node(const Case& c, NamedTensors& inputs) {
  TestModel model(c.opset);
  std::vector<std::string> operands, results;
  const std::map<DType, int32_t> types{{DType::f32, onnx::TensorProto::FLOAT},
                                       {DType::i32, onnx::TensorProto::INT32},
                                       {DType::i64, onnx::TensorProto::INT64},
                                       {DType::boolean, onnx::TensorProto::BOOL}};
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const Operand& operand = c.operands[i];
    const std::string name = operand.kind == Operand::absent ? "" : "operand" + std::to_string(i);
    operands.push_back(name);
    if (operand.kind == Operand::known) model.weight(name, operand.tensor);
    if (operand.kind != Operand::data) continue;
    model.input(name, operand.tensor.type.shape, types.at(operand.tensor.type.dtype));
    inputs[name] = operand.tensor;
  }
  for (size_t i = 0; i < c.results.size(); ++i) {
    results.push_back("result" + std::to_string(i));
    model.output(results.back());
  }
  return model.node(c.op, operands, results, c.attributes);
}

std::vector<Case> all_cases() {
  std::vector<Case> all = cases();
  for (Case& c : attention_cases()) all.push_back(std::move(c));
  return all;
}

TEST(Operators, ComputeWhatOnnxSays) {
  for (const Case& c : all_cases()) {
    SCOPED_TRACE(c.op + " of opset " + std::to_string(c.opset));
    NamedTensors inputs;
    const TestModel model = one_node(c, inputs);
    const auto outputs = evaluate(model, inputs);
    for (size_t i = 0; i < c.results.size(); ++i) {
      const std::vector<double>& found = outputs.at("result" + std::to_string(i));
      ASSERT_EQ(found.size(), c.results[i].size());
      for (size_t k = 0; k < found.size(); ++k)
        if (found[k] != c.results[i][k]) {  // also an infinity
          EXPECT_NEAR(found[k], c.results[i][k], 1e-5 * (1 + std::abs(found[k])));
        }
    }
  }
}

TEST(Operators, EveryRowHasACase) {
  std::set<std::string, std::less<>> tried;
  for (const Case& c : all_cases()) tried.insert(c.op);
  for (const OnnxOperator* row : onnx_operators())
    EXPECT_TRUE(tried.contains(row->name)) << row->name << " has no case in operators_test.cpp or attention_cases.cpp";
}

TEST(Operators, LaterOpsetsMeanTheSame) {
  for (int64_t opset : {13, 17, 20, 21, 22, 23, 24, 25}) {
    NamedTensors inputs;
    const Case add{"Add", opset, {x({1}, {1}), x({1}, {2})}, {}, {{3}}};
    const TestModel model = one_node(add, inputs);
    EXPECT_EQ(evaluate(model, inputs).at("result0"), std::vector<double>{3}) << opset;
  }
}

}  // namespace
}  // namespace halfstep::test
