// What of a model is read at all: what its outputs need, with the inputs that are constants decided.
#include <gtest/gtest.h>

#include <limits>

#include "test_model.h"

namespace halfstep::test {
namespace {

TEST(NeededNodes, WhatNoOutputDependsOnMayBeOfAnyKind) {
  TestModel model;
  model.input("x", {2}).node("Unheard", {"x"}, {"u"}).node("Relu", {"u"}, {"v"}).node("Neg", {"x"}, {"y"}).output("y");
  EXPECT_EQ(evaluate(model, {{"x", floats({2}, {1, -2})}}).at("y"), (std::vector<double>{-1, 2}));
}

TEST(NeededNodes, OfSeveralOutputsTheChosenOneIsReadAloneWhereTheOthersCannotBe) {
  TestModel model;
  model.input("x", {2}).weight("w", floats({2}, {3, 4}));
  model.node("Unheard", {"x"}, {"u"}).node("Mul", {"x", "w"}, {"y"}).output("u").output("y");
  const ImportedModel imported = import_model(model.file(), {.output = "y"});
  EXPECT_EQ(imported.outputs, std::vector<std::string>{"y"});
  EXPECT_NE(import_error(model).find("Unheard"), std::string::npos);
}

onnx::GraphProto branch(const std::string& op) {
  onnx::GraphProto graph;
  *graph.add_node() = node_proto(op, {"x"}, {op + "_result"});
  graph.add_output()->set_name(op + "_result");
  return graph;
}

TEST(SetInputs, DecideBranches) {
  TestModel model;
  model.input("x", {2}).input("sr", {}, onnx::TensorProto::INT64).weight("wide", ints({}, {16000}));
  model.node("Equal", {"sr", "wide"}, {"is_wide"});
  model.node("If", {"is_wide"}, {"y"}, {{"then_branch", branch("Neg")}, {"else_branch", branch("Abs")}}).output("y");
  ImportOptions options{.mode = ImportMode::as_exported};
  const auto at = [&](double rate) {
    options.values = {{"sr", rate}};
    return evaluate(model, {{"x", floats({2}, {1, -2})}}, options).at("y");
  };
  EXPECT_EQ(at(16000), (std::vector<double>{-1, 2}));
  EXPECT_EQ(at(8000), (std::vector<double>{1, 2}));
  options.values = {{"sr", 0.5}};
  EXPECT_NE(import_error(model, options).find("input 'sr' is set to 0.5"), std::string::npos);
  options.values = {{"rate", 1}};
  EXPECT_NE(import_error(model, options).find("'rate', which the model does not have"), std::string::npos);
}

constexpr int64_t kFloat8 = 17, kInt4 = 22;

TEST(NarrowTypes, AreRoundedWhereTheyAreCastTo) {
  TestModel model(23);
  model.input("x", {5})
      .node("Cast", {"x"}, {"narrow"}, {{"to", kFloat8}})
      .node("Cast", {"narrow"}, {"y"}, {{"to", int64_t{1}}});
  model.node("Cast", {"x"}, {"integers"}, {{"to", kInt4}}).node("Cast", {"integers"}, {"z"}, {{"to", int64_t{1}}});
  model.output("y").output("z");
  const auto found = evaluate(model, {{"x", floats({5}, {1.1, -17.5, 500, 0.001, 8})}});
  EXPECT_EQ(found.at("y"), (std::vector<double>{1.125, -18, 448, 0.001953125, 8}));
  EXPECT_EQ(found.at("z"), (std::vector<double>{1, -1, 4, 0, -8}));
}

TEST(NarrowTypes, AreNotTakenForWhatHoldsThem) {
  TestModel model(23);
  model.input("x", {2}).node("Cast", {"x"}, {"narrow"}, {{"to", kFloat8}}).node("Neg", {"narrow"}, {"y"}).output("y");
  EXPECT_NE(import_error(model).find("operand 'narrow': elements of type float8e4m3fn"), std::string::npos);
}

}  // namespace
}  // namespace halfstep::test
