// Models that are large, deep or hostile: linear time, and an Error that names the place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <limits>

#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int kMany = 100'000;
constexpr double kMostSeconds = 30;  // linear takes up to 3 on a shared core, quadratic minutes

// Of the processor: other tests may run beside this one.
template <typename Run>
double seconds(Run&& run) {
  const std::clock_t begin = std::clock();
  run();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

double import_seconds(const TestModel& model) {
  const OnnxFile file = model.file();
  return seconds([&] { import_model(file, {.mode = ImportMode::as_exported, .weights = InitialWeights::none}); });
}

TEST(Limits, AChainOfManyNodesIsLinear) {
  TestModel model;
  model.input("x", {2, 4}).weight("w", ramp({4}));
  std::string last = "x";
  for (int i = 0; i < kMany; ++i) {
    const std::string next = "v" + std::to_string(i);
    model.node(i % 2 ? "Relu" : "Add", i % 2 ? std::vector{last} : std::vector{last, std::string("w")}, {next});
    last = next;
  }
  EXPECT_LT(import_seconds(model.output(last)), kMostSeconds);
}

TEST(Limits, AWideGraphOfManyWeightsAndOutputsIsLinear) {
  TestModel model;
  model.input("x", {2, 4});
  std::vector<std::string> names;
  for (int i = 0; i < kMany / 2; ++i) {
    const std::string w = "w" + std::to_string(i), y = "y" + std::to_string(i);
    model.weight(w, ramp({4}, i)).node("Mul", {"x", w}, {y});
    names.push_back(y);
    if (i % 100 == 0) model.output(y);
  }
  model.node("Sum", names, {"sum"}).output("sum");
  EXPECT_LT(import_seconds(model), kMostSeconds);
}

TEST(Limits, ConstantArithmeticOfManyNodesIsLinear) {
  TestModel model;
  model.input("x", {2, 4}).node("Shape", {"x"}, {"v0"}).weight("one", ints({1}, {1}));
  for (int i = 0; i < kMany; ++i) model.node("Add", {"v" + std::to_string(i), "one"}, {"v" + std::to_string(i + 1)});
  EXPECT_LT(import_seconds(model.output("v" + std::to_string(kMany))), kMostSeconds);
}

TEST(Limits, ManyBranchesAreLinear) {
  onnx::GraphProto then_branch;
  *then_branch.add_node() = node_proto("Neg", {"x"}, {"t"});
  then_branch.add_output()->set_name("t");
  TestModel model;
  model.input("x", {2}).weight("yes", floats({}, {1}).cast(DType::boolean));
  for (int i = 0; i < kMany / 10; ++i)
    model.node("If", {"yes"}, {"y" + std::to_string(i)}, {{"then_branch", then_branch}, {"else_branch", then_branch}});
  EXPECT_LT(import_seconds(model.output("y0")), kMostSeconds);
}

TEST(Limits, ACycleThroughManyNodesIsFoundInLinearTime) {
  TestModel model;
  model.input("x", {2});
  for (int i = 0; i < kMany / 4; ++i) model.node("Add", {"x", "v" + std::to_string(i)}, {"v" + std::to_string(i + 1)});
  model.node("Relu", {"v2"}, {"v0"}, {}, "back").output("v9");
  const double found =
      seconds([&] { EXPECT_THAT(import_error(model), AllOf(HasSubstr("cycle"), HasSubstr("'back'"))); });
  EXPECT_LT(found, kMostSeconds);
}

TEST(Limits, DeepBranchesAreRefused) {
  onnx::GraphProto body;
  *body.add_node() = node_proto("Neg", {"x"}, {"t"});
  body.add_output()->set_name("t");
  for (int i = 0; i < 80; ++i) {
    onnx::GraphProto outer;
    const std::string result = "t" + std::to_string(i);
    *outer.add_node() = node_proto("If", {"yes"}, {result}, {{"then_branch", body}, {"else_branch", body}});
    if (i > 10) outer.mutable_node(0)->mutable_attribute()->DeleteSubrange(1, 1);  // or the file doubles each time
    outer.add_output()->set_name(result);
    body.Swap(&outer);
    if (i > 10) continue;
    body.mutable_node(0)->mutable_attribute(1)->mutable_g()->Clear();
  }
  TestModel model;
  model.input("x", {2}).weight("yes", floats({}, {1}).cast(DType::boolean));
  model.node("If", {"yes"}, {"y"}, {{"then_branch", body}, {"else_branch", body}}).output("y");
  EXPECT_NE(import_error(model), "");
}

// ---- functions ----

onnx::FunctionProto function(const std::string& name, const onnx::NodeProto& node) {
  onnx::FunctionProto f;
  f.set_name(name), f.set_domain("local");
  f.add_input("a"), f.add_output("b");
  f.add_opset_import()->set_version(17);
  f.add_opset_import()->set_domain("local");
  *f.add_node() = node;
  return f;
}

TestModel calls(const std::vector<onnx::FunctionProto>& functions) {
  TestModel model;
  model.proto.add_opset_import()->set_domain("local");
  for (const onnx::FunctionProto& f : functions) *model.proto.add_functions() = f;
  return model.input("x", {2}).node("local.f0", {"x"}, {"y"}, {}, "call").output("y");
}

TEST(Limits, FunctionsThatCallEachOtherAreRefusedByName) {
  const auto call = [](const std::string& name) { return node_proto("local." + name, {"a"}, {"b"}, {}, "inner"); };
  EXPECT_THAT(import_error(calls({function("f0", call("f1")), function("f1", call("f0"))})),
              HasSubstr("node local.f0 'call/inner/inner': function 'f0' calls itself"));
}

TEST(Limits, DeepCallsAreRefused) {
  std::vector<onnx::FunctionProto> deep;
  for (int i = 0; i < 100; ++i) {
    const std::string next = "local.f" + std::to_string(i + 1);
    deep.push_back(function("f" + std::to_string(i), node_proto(next, {"a"}, {"b"})));
  }
  deep.push_back(function("f100", node_proto("Relu", {"a"}, {"b"})));
  EXPECT_THAT(import_error(calls(deep)), HasSubstr("nested too deeply"));
}

TEST(Limits, WrongNumbersOfOperandsAndResultsAreNamed) {
  const auto relu = function("f0", node_proto("Relu", {"a"}, {"b"}));
  TestModel many = calls({relu});
  many.node("local.f0", {"x", "x"}, {"z"}, {}, "wide")
      .node("local.f0", {"x"}, {"u", "v"}, {}, "long")
      .output("z")
      .output("u");
  EXPECT_THAT(import_error(many), AllOf(HasSubstr("'wide': 2 operands given, the function has 1"),
                                        HasSubstr("'long': 2 results asked for, the function has 1")));
  TestModel model;
  model.input("x", {2})
      .node("Relu", {"x", "x"}, {"a"}, {}, "r")
      .node("Add", {"x"}, {"b"}, {}, "s")
      .output("b")
      .output("a");
  model.node("Neg", {"x"}, {"c", "d"}, {}, "n").output("d");
  EXPECT_THAT(import_error(model), AllOf(HasSubstr("node Relu 'r': 2 operands given, 1 expected"),
                                         HasSubstr("node Add 's': 1 operands given, 2 expected"), HasSubstr("'d'")));
}

// ---- sizes ----

TEST(Limits, SizesThatOverflowAreRefusedByName) {
  const int64_t huge = int64_t{1} << 40;
  const auto sized = [&](const std::string& op, const Ints& sizes, const Shape& in = {1}) {
    TestModel model;
    Tensor tensor(TensorType{DType::i64, {static_cast<int64_t>(sizes.size())}});
    std::copy(sizes.begin(), sizes.end(), tensor.as<int64_t>().begin());
    model.input("x", in).weight("sizes", tensor);
    if (op == "ConstantOfShape")
      model.node(op, {"sizes"}, {"y"}, {}, "big");
    else
      model.node(op, {"x", "sizes"}, {"y"}, {}, "big");
    return import_error(model.output("y"));
  };
  EXPECT_THAT(sized("Expand", {huge, huge}), AllOf(HasSubstr("'big'"), HasSubstr("overflows")));
  EXPECT_THAT(sized("ConstantOfShape", {huge, huge}), AllOf(HasSubstr("'big'"), HasSubstr("overflows")));
  EXPECT_THAT(sized("Tile", {huge, huge}, {2, 2}), AllOf(HasSubstr("'big'"), HasSubstr("overflows")));
  EXPECT_THAT(sized("Tile", {INT64_MAX}, {2}), HasSubstr("overflows"));
  EXPECT_THAT(sized("Reshape", {huge, huge}), AnyOf(HasSubstr("overflows"), HasSubstr("cannot be reshaped")));
  EXPECT_THAT(sized("Pad", {INT64_MAX, INT64_MAX}), HasSubstr("out of range"));
  TestModel convolution;
  convolution.input("x", {1, 1, 4}).weight("w", ramp({1, 1, 2}));
  convolution.node("Conv", {"x", "w"}, {"y"}, {{"pads", Ints{INT64_MAX, INT64_MAX}}}, "big").output("y");
  EXPECT_THAT(import_error(convolution), HasSubstr("'big'"));
  TestModel groups;
  groups.input("x", {1, 2, 4}).weight("w", ramp({2, 2, 2}));
  groups.node("Conv", {"x", "w"}, {"y"}, {{"group", std::numeric_limits<int64_t>::min()}}, "big").output("y");
  EXPECT_THAT(import_error(groups), HasSubstr("'big'"));
  TestModel outer;  // [2^40, 1] + [1, 2^40]
  outer.input("x", {1}).weight("s", ints({2}, {double(huge), 1})).weight("t", ints({2}, {1, double(huge)}));
  outer.node("Expand", {"x", "s"}, {"a"}).node("Expand", {"x", "t"}, {"b"}).node("Add", {"a", "b"}, {"y"}, {}, "big");
  EXPECT_THAT(import_error(outer.output("y")), AllOf(HasSubstr("'big'"), HasSubstr("overflows")));
}

TEST(Limits, ShapesThatDependOnDataAreRefusedByName) {
  const auto shaped = [](const std::string& op) {
    TestModel model;
    model.input("x", {4}).input("s", {1}, onnx::TensorProto::INT64);
    return import_error(model.node(op, {"x", "s"}, {"y"}, {}, "view").output("y"));
  };
  for (const char* op : {"Reshape", "Expand", "Tile"})
    EXPECT_THAT(shaped(op), AllOf(HasSubstr(std::string("node ") + op + " 'view'"), HasSubstr("depends on the data")));
  TestModel nonzero;
  nonzero.input("x", {4}).node("NonZero", {"x"}, {"i"}, {}, "which").node("Gather", {"x", "i"}, {"y"}).output("y");
  EXPECT_THAT(import_error(nonzero), HasSubstr("'which'"));
}

}  // namespace
}  // namespace halfstep::test
