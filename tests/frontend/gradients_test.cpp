// ONNX operators whose gradient is that of what they are imported as: one line each, against central differences.
#include <gtest/gtest.h>

#include "passes/model/attach_loss.h"
#include "passes/model/choose_layouts.h"
#include "test_model.h"
#include "tests/central_differences.h"

namespace halfstep::test {
namespace {

// An operand that is trained, known when the model is compiled, or left out.
struct Operand {
  enum Kind { trained, known, absent } kind;
  Tensor tensor = {};
};
Operand trained(const Shape& shape) { return {Operand::trained, ramp(shape)}; }
Operand known(const Tensor& tensor) { return {Operand::known, tensor}; }
Operand absent() { return {Operand::absent}; }
Tensor small(const Shape& shape, const std::vector<double>& values) {
  return Tensor::from_values({DType::i8, shape}, values);
}

struct Case {
  std::string op;
  int64_t opset;
  std::vector<Operand> operands;
  AttributeList attributes = {};
  LeafRange range = {};  // of the trained operands
};

std::vector<Case> cases() {
  using Text = std::string;
  return {
      {"AveragePool", 19, {trained({1, 2, 7})}, {{"kernel_shape", Ints{2}}, {"dilations", Ints{3}}}},
      {"CenterCropPad", 18, {trained({3, 4}), known(ints({2}, {5, 1}))}},
      {"Col2Im",
       18,
       {trained({1, 4, 6}), known(ints({2}, {3, 4})), known(ints({2}, {2, 2}))},
       {{"dilations", Ints{1, 1}}}},
      {"ConvTranspose", 11, {trained({1, 2, 3, 3}), trained({2, 1, 3, 2}), trained({1})}, {{"strides", Ints{2, 1}}}},
      {"ConvTranspose",
       11,
       {trained({1, 4, 3}), trained({4, 2, 3})},
       {{"group", int64_t{2}},
        {"strides", Ints{2}},
        {"pads", Ints{1, 1}},
        {"dilations", Ints{2}},
        {"output_padding", Ints{1}}}},
      {"ConvTranspose",
       11,
       {trained({1, 1, 2}), trained({1, 1, 2})},
       {{"output_shape", Ints{5}}, {"strides", Ints{2}}}},
      {"ConvTranspose", 11, {trained({1, 1, 2, 1, 2}), trained({1, 2, 1, 2, 2})}},
      {"DequantizeLinear", 13, {known(small({2, 2}, {1, -3, 4, 100})), trained({2}), known(small({2}, {5, 0}))}},
      {"Einsum", 12, {trained({2, 2, 3}), trained({3, 2, 4})}, {{"equation", Text("bij,jbk->kib")}}},
      {"Einsum", 12, {trained({2, 3, 3})}, {{"equation", Text("...ii->...i")}}},
      {"Einsum", 12, {trained({3}), trained({2, 3}), trained({2})}, {{"equation", Text("i,ji,j->j")}}},
      {"LpNormalization", 7, {trained({2, 3})}, {{"p", int64_t{1}}}},
      {"LpNormalization", 7, {trained({2, 3})}, {{"axis", int64_t{0}}}},
      {"ReduceProd", 13, {trained({2, 5})}, {{"axes", Ints{1}}}},
      {"ReduceProd", 18, {trained({7})}},
      {"AffineGrid", 20, {trained({2, 2, 3}), known(ints({4}, {2, 1, 2, 3}))}},
      {"GridSample", 16, {trained({1, 2, 3, 4}), trained({1, 2, 2, 2})}, {{"padding_mode", Text("zeros")}}},
      {"GridSample",
       20,
       {trained({2, 1, 5}), trained({2, 3, 1})},
       {{"padding_mode", Text("reflection")}, {"align_corners", int64_t{1}}},
       {-2, 2}},
      {"GridSample", 20, {trained({1, 1, 3, 3}), trained({1, 1, 2, 2})}, {{"mode", Text("nearest")}}},
      {"GridSample",
       20,
       {trained({1, 1, 3, 4}), trained({1, 2, 2, 2})},
       {{"mode", Text("cubic")}, {"padding_mode", Text("border")}}},
      {"GridSample",
       20,
       {trained({1, 2, 3, 3}), trained({1, 2, 1, 2})},
       {{"mode", Text("cubic")}, {"padding_mode", Text("reflection")}},
       {-2, 2}},
      {"MaxUnpool",
       11,
       {trained({1, 1, 3}), known(ints({1, 1, 3}, {5, 0, 3}))},
       {{"kernel_shape", Ints{2}}, {"strides", Ints{2}}}},
      {"DFT", 20, {trained({2, 5, 1})}, {{"onesided", int64_t{1}}}},
      {"DFT", 20, {trained({1, 3, 2}), known(ints({}, {5}))}, {{"inverse", int64_t{1}}, {"onesided", int64_t{1}}}},
      {"DFT", 17, {trained({1, 4, 2}), known(ints({}, {3}))}, {{"inverse", int64_t{1}}}},
      {"STFT", 17, {trained({1, 8, 1}), known(ints({}, {2})), known(floats({4}, {0.5, 1, 1, 0.5}))}},
      {"CumProd", 26, {trained({2, 5}), known(ints({}, {1}))}},
      {"CumProd", 26, {trained({4}), known(ints({}, {0}))}, {{"exclusive", int64_t{1}}, {"reverse", int64_t{1}}}},
      {"SwiGLU", 28, {trained({3}), trained({3})}, {{"alpha", 2.0}}},
      {"PRelu", 7, {trained({2, 3, 4}), trained({3})}},
      {"Det", 11, {trained({2, 3, 3})}},
      {"Det", 11, {trained({1, 4, 4})}},
      {"RoiAlign",
       16,
       {trained({1, 2, 4, 4}), known(floats({2, 4}, {0, 0, 3, 2.5, 1, 1, 9, 2})), known(ints({2}, {0, 0}))},
       {{"output_height", int64_t{2}}, {"output_width", int64_t{2}}, {"sampling_ratio", int64_t{2}}}},
      {"DeformConv",
       19,
       {trained({1, 2, 3, 3}), trained({2, 1, 2, 2}), trained({1, 8, 2, 2}), trained({2}), trained({1, 4, 2, 2})},
       {{"group", int64_t{2}}}},
      {"TensorScatter", 24, {trained({2, 3, 2}), trained({2, 2, 2}), known(ints({2}, {1, 0}))}},
      {"CausalConvWithState",
       27,
       {trained({1, 2, 3}), trained({2, 1, 3}), trained({2}), trained({1, 2, 2})},
       {{"activation", Text("silu")}}},
      {"LinearAttention",
       27,
       {trained({1, 2, 8}), trained({1, 2, 4}), trained({1, 2, 6}), trained({1, 2, 2, 3}), trained({1, 2, 2}),
        trained({1, 2, 2})},
       {{"q_num_heads", int64_t{4}}, {"kv_num_heads", int64_t{2}}}},
      {"GlobalLpPool", 7, {trained({1, 2, 3})}, {{"p", int64_t{3}}}, {0.25, 1}},
      {"LRN", 13, {trained({1, 5, 2})}, {{"size", int64_t{4}}, {"alpha", 0.5}}},
      {"LpPool", 18, {trained({1, 2, 5})}, {{"kernel_shape", Ints{2}}, {"pads", Ints{1, 0}}}, {0.25, 1}},
      {"MaxPool", 12, {trained({1, 2, 5, 5})}, {{"kernel_shape", Ints{2, 2}}, {"dilations", Ints{2, 1}}}},
      {"MaxPool", 12, {trained({1, 1, 17, 18})}, {{"kernel_shape", Ints{17, 17}}, {"pads", Ints{1, 0, 0, 0}}}},
      {"Pad", 13, {trained({2, 3}), known(ints({4}, {0, 2, 1, 2}))}, {{"mode", Text("reflect")}}},
      {"Pad", 13, {trained({2, 3}), known(ints({4}, {3, -1, 1, 2}))}, {{"mode", Text("edge")}}},
      {"Pad", 19, {trained({2, 3}), known(ints({4}, {3, 1, 0, 4}))}, {{"mode", Text("wrap")}}},
      {"Resize", 13, {trained({1, 1, 2, 3}), absent(), known(floats({4}, {1, 1, 2, 3}))}, {{"mode", Text("nearest")}}},
      {"Resize",
       13,
       {trained({1, 2, 3, 2}), absent(), absent(), known(ints({4}, {1, 2, 5, 1}))},
       {{"mode", Text("linear")}, {"coordinate_transformation_mode", Text("align_corners")}}},
      {"Resize",
       19,
       {trained({2, 1, 4}), absent(), known(floats({1}, {0.6})), absent()},
       {{"mode", Text("cubic")}, {"antialias", int64_t{1}}, {"axes", Ints{2}}}},
      {"Resize",
       13,
       {trained({1, 2, 1}), absent(), absent(), known(ints({3}, {1, 2, 12}))},
       {{"mode", Text("linear")}}},
      {"Upsample", 9, {trained({1, 1, 3}), known(floats({3}, {1, 1, 12}))}},
  };
}

TEST(ImportedGradients, EqualCentralDifferences) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.op + " of opset " + std::to_string(c.opset));
    TestModel model(c.opset);
    std::vector<std::string> operands;
    for (const Operand& operand : c.operands) {
      operands.push_back(operand.kind == Operand::absent ? "" : "operand" + std::to_string(operands.size()));
      if (operand.kind != Operand::absent) model.weight(operands.back(), operand.tensor);
    }
    model.node(c.op, operands, {"y"}, c.attributes).output("y");
    const ImportedModel imported = import_model(model.file());
    expect_gradients_in_all_types(
        choose_layouts(attach_loss(imported.graph, {{.kind = "mean_squared_error", .output = "y"}})), c.range);
  }
}

TEST(ImportedGradients, PassThroughTheStatisticsOfALayerNorm) {
  for (const std::vector<std::string>& read : {std::vector<std::string>{"mean", "inverse"}, {"normal", "inverse"}}) {
    TestModel model;
    model.weight("x", ramp({3, 4})).weight("scale", ramp({4})).weight("shift", ramp({4}));
    model.node("LayerNormalization", {"x", "scale", "shift"}, {"normal", "mean", "inverse"}, {{"epsilon", 0.1}});
    model.node("Mul", read, {"y"}).output("y");
    expect_gradients_in_all_types(
        choose_layouts(attach_loss(import_model(model.file()).graph, {{.kind = "mean_squared_error", .output = "y"}})));
  }
}

}  // namespace
}  // namespace halfstep::test
