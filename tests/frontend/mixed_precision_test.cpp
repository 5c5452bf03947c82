// Casts, and weights in the types in which they are read.
#include "frontend/export/mixed_precision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/export/type_rows.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/repairs/read_model.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

const NodeAssignment kLow{.type = DType::f16, .reason = "why"};
const NodeAssignment kFull{.type = DType::f32, .reason = ""};

MixedModel mixed(const TestModel& model, std::map<std::string, NodeAssignment> nodes, DType low = DType::f16) {
  return mixed_precision(read_model(model.file()), {.low = low, .nodes = std::move(nodes)});
}

// "y = MatMul(x_f16, w_f16)"
std::vector<std::string> nodes_of(const MixedModel& mixed) {
  std::vector<std::string> lines;
  for (const onnx::NodeProto& node : mixed.model.proto().graph().node()) {
    std::string text;
    for (const std::string& output : node.output()) text += (text.empty() ? "" : ", ") + output;
    text += " = " + node.op_type() + "(";
    for (int i = 0; i < node.input_size(); ++i) text += (i ? ", " : "") + node.input(i);
    lines.push_back(text + ")");
  }
  return lines;
}

std::vector<std::string> weights_of(const MixedModel& mixed) {
  std::vector<std::string> names;
  for (const onnx::TensorProto& tensor : mixed.model.proto().graph().initializer())
    names.push_back(tensor.name() + (tensor.data_type() == onnx::TensorProto::FLOAT16 ? ": f16" : ": f32"));
  return names;
}

TEST(MixedPrecision, CastsOnceForAllReadersAndStoresWeightsAsTheyAreRead) {
  TestModel model;
  model.input("x", {2, 3}).weight("w", ramp({3, 3})).weight("b", ramp({3}));
  model.node("MatMul", {"x", "w"}, {"m"}).node("Add", {"m", "b"}, {"a"}).node("MatMul", {"x", "w"}, {"n"});
  model.node("Exp", {"a"}, {"e"}).node("Mul", {"e", "n"}, {"y"}).output("y");
  const MixedModel found = mixed(model, {{"m", kLow}, {"n", kLow}, {"a", kLow}, {"e", kFull}, {"y", kFull}});
  EXPECT_THAT(nodes_of(found), ElementsAre("x_f16 = Cast(x)", "m = MatMul(x_f16, w_f16)", "a = Add(m, b_f16)",
                                           "n = MatMul(x_f16, w_f16)", "a_f32 = Cast(a)", "e = Exp(a_f32)",
                                           "n_f32 = Cast(n)", "y = Mul(e, n_f32)"));
  EXPECT_THAT(weights_of(found), UnorderedElementsAre("w_f16: f16", "b_f16: f16"));
  EXPECT_EQ(found.casts, 3);
  EXPECT_EQ(found.low_nodes, 3);
}

TEST(MixedPrecision, OutputsAndWhatBranchesReadKeepNamesAndTypes) {
  TestModel model;
  model.input("x", {3}).input("c", {}, onnx::TensorProto::BOOL);
  model.node("Relu", {"x"}, {"r"}).node("Abs", {"r"}, {"s"});
  onnx::GraphProto branch;
  *branch.add_node() = node_proto("Neg", {"r"}, {"inner"});
  *branch.add_output() = value_info("inner", {3});
  model.node("If", {"c"}, {"y"}, {{"then_branch", branch}, {"else_branch", branch}}).output("y").output("s");
  const MixedModel found = mixed(model, {{"r", kLow}, {"s", kLow}});
  EXPECT_THAT(nodes_of(found), ElementsAre("x_f16 = Cast(x)", "r_f16 = Relu(x_f16)", "r = Cast(r_f16)",
                                           "s_f16 = Abs(r_f16)", "s = Cast(s_f16)", "y = If(c)"));
}

// ONNX Runtime would make a LayerNormalization of two types of the cast and the norm.
TEST(MixedPrecision, TheSquareOfANormBehindACastIsAProduct) {
  TestModel model;
  model.input("x", {2, 4}).weight("two", floats({}, {2}));
  const AttributeList rows{{"axes", Ints{-1}}};
  model.node("Relu", {"x"}, {"r"}).node("ReduceMean", {"r"}, {"m"}, rows).node("Sub", {"r", "m"}, {"c"});
  model.node("Pow", {"c", "two"}, {"s"}).node("Pow", {"m", "two"}, {"t"}).node("Add", {"s", "t"}, {"y"}).output("y");
  const MixedModel found =
      mixed(model, {{"r", kLow}, {"m", kFull}, {"c", kFull}, {"s", kFull}, {"t", kFull}, {"y", kFull}});
  EXPECT_THAT(nodes_of(found),
              ElementsAre("x_f16 = Cast(x)", "r = Relu(x_f16)", "r_f32 = Cast(r)", "m = ReduceMean(r_f32)",
                          "c = Sub(r_f32, m)", "s = Mul(c, c)", "t = Pow(m, two)", "y = Add(s, t)"));
}

TEST(MixedPrecision, WhatASmallConstantMeetsStaysWide) {
  TestModel model;
  model.input("x", {3}).weight("tiny", floats({}, {1e-8})).weight("half", floats({}, {0.5}));
  model.node("Add", {"x", "tiny"}, {"a"}).node("Mul", {"a", "half"}, {"y"}).output("y");
  EXPECT_THAT(nodes_of(mixed(model, {{"a", kLow}, {"y", kLow}})),
              ElementsAre("a = Add(x, tiny)", "a_f16 = Cast(a)", "y_f16 = Mul(a_f16, half_f16)", "y = Cast(y_f16)"));
}

TEST(MixedPrecision, NodesWithoutAnAssignmentFollowWhatTheyRead) {
  TestModel model;
  model.input("x", {2, 3}).weight("shape", ints({1}, {6}));
  model.node("Relu", {"x"}, {"r"}).node("Reshape", {"r", "shape"}, {"v"}).node("Reshape", {"x", "shape"}, {"u"});
  model.node("Add", {"u", "v"}, {"y"}).output("y");
  EXPECT_THAT(nodes_of(mixed(model, {{"r", kLow}})),
              ElementsAre("x_f16 = Cast(x)", "r = Relu(x_f16)", "v = Reshape(r, shape)", "u = Reshape(x, shape)",
                          "v_f32 = Cast(v)", "y = Add(u, v_f32)"));
}

TEST(MixedPrecision, TransposedWeightsAreStoredLow) {
  TestModel model;
  model.input("x", {2, 3}).weight("w", ramp({4, 3}));
  model.node("Transpose", {"w"}, {"t"}, {{"perm", Ints{1, 0}}})
      .node("MatMul", {"x", "t"}, {"m"})
      .node("Abs", {"m"}, {"y"});
  model.output("y");
  const MixedModel found = mixed(model, {{"m", kLow}, {"y", kFull}});
  EXPECT_THAT(nodes_of(found), ElementsAre("x_f16 = Cast(x)", "t_f16 = Transpose(w_f16)", "m = MatMul(x_f16, t_f16)",
                                           "m_f32 = Cast(m)", "y = Abs(m_f32)"));
  EXPECT_THAT(weights_of(found), ElementsAre("w_f16: f16"));
}

TEST(MixedPrecision, OperatorsOfOlderVersionsThatKnowNoLowTypeStayWide) {
  TestModel model(12);
  model.input("x", {3}).node("Relu", {"x"}, {"r"}).node("CumSum", {"r", "axis"}, {"y"}).output("y");
  model.weight("axis", Tensor::scalar(DType::i64, 0));
  EXPECT_THAT(nodes_of(mixed(model, {{"r", {DType::bf16, ""}}, {"y", {DType::bf16, ""}}}, DType::bf16)),
              ElementsAre("r = Relu(x)", "y = CumSum(r, axis)"));
  EXPECT_THAT(nodes_of(mixed(model, {{"r", kLow}, {"y", kLow}})),
              ElementsAre("x_f16 = Cast(x)", "r = Relu(x_f16)", "r_f32 = Cast(r)", "y = CumSum(r_f32, axis)"));
}

TEST(TypeRows, AreThoseOfTheVersion) {
  EXPECT_FALSE(find_type_row("CumSum", 11)->f16);
  EXPECT_TRUE(find_type_row("CumSum", 17)->f16);
  EXPECT_EQ(find_type_row("LayerNormalization", 16), nullptr);
  EXPECT_EQ(find_type_row("Loop", 17), nullptr);
  EXPECT_EQ(find_type_row("Concat", 17)->operand(9), 'T');
  EXPECT_EQ(find_type_row("Split", 17)->result(3), 'T');
  EXPECT_EQ(find_type_row("BatchNormalization", 17)->operand(1), '-');
}

}  // namespace
}  // namespace halfstep::test
