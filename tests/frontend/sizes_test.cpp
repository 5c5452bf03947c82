// Models read at other sizes than exported: how dimensions follow, and how content does.
#include "frontend/import/sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/import/respecialise.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr Factor kBatch{2, 64}, kLength{128, 32}, kOne{1, 64};
Factor n(int64_t size) { return {size, size}; }

// The wanted sizes after a reshape, or nothing.
std::optional<Shape> follow(const Dimensions& from, const Shape& exported) {
  const std::optional<Dimensions> to = read_target(from, exported);
  return to ? std::optional(wanted_sizes(*to)) : std::nullopt;
}

TEST(Factors, ATargetConsumesThemInOrder) {
  EXPECT_EQ(follow({{n(197)}, {kBatch}, {n(12)}, {n(64)}}, {394, 768}), (Shape{197 * 64, 768}));
  EXPECT_EQ(follow({{n(197), kBatch}, {n(768)}}, {197, 2, 768}), (Shape{197, 64, 768}));
  EXPECT_EQ(follow({{kBatch, n(12)}, {n(197)}, {n(64)}}, {2, 12, 197, 64}), (Shape{64, 12, 197, 64}));
  EXPECT_EQ(follow({{kBatch}, {kLength}, {n(768)}}, {256, 768}), (Shape{64 * 32, 768}));
  EXPECT_EQ(follow({{kBatch}, {kLength}, {n(768)}}, {2, 128, 12, 64}), (Shape{64, 32, 12, 64}));
  EXPECT_EQ(follow({{n(4)}, {n(6)}, {kBatch}}, {8, 3, 2}), (Shape{8, 3, 64})) << "numbers merge and split";
  EXPECT_EQ(follow({{n(4)}, {kBatch}}, {2, 4}), (Shape{2, 128})) << "the batch is the inner part of the 4";
  EXPECT_EQ(follow({{kBatch}, {n(3)}}, {1, 2, 1, 3, 1}), (Shape{1, 64, 1, 3, 1}));
}

TEST(Factors, ResultsCarryFactors) {
  const std::optional<Dimensions> merged = read_target({{n(3)}, {kBatch}, {kLength}}, {3, 256});
  ASSERT_TRUE(merged);
  EXPECT_EQ(*merged, (Dimensions{{n(3)}, {kBatch, kLength}}));
  EXPECT_EQ(follow(*merged, {6, 128}), (Shape{192, 32}));
  EXPECT_EQ(exported_sizes(*merged), (Shape{3, 256}));
}

TEST(Factors, ASymbolIsNeverSplit) {
  EXPECT_EQ(follow({{kLength}, {n(3)}}, {64, 6}), std::nullopt);
  EXPECT_EQ(follow({{kBatch}, {n(3)}, {n(4)}}, {3, 8}), std::nullopt) << "the rows of the batch would mix";
  EXPECT_EQ(follow({{Factor{394, 12608}}, {n(768)}}, {197, 2, 768}), std::nullopt) << "197 * 2 in an unknown order";
  EXPECT_EQ(follow({{n(3)}, {kBatch}}, {2, 3}), std::nullopt);
}

TEST(Factors, ABatchOfOneGoesWhereOnlyOnePlaceIs) {
  EXPECT_EQ(follow({{kOne}, {n(3)}, {n(4)}}, {1, 12}), (Shape{64, 12}));
  EXPECT_EQ(follow({{kOne}, {n(3)}, {n(4)}}, {12}), (Shape{64 * 12}));
  EXPECT_EQ(follow({{n(3)}, {kOne}, {n(4)}}, {3, 1, 4}), (Shape{3, 64, 4}));
  EXPECT_EQ(follow({{n(3)}, {kOne}, {n(4)}}, {12}), (Shape{3 * 64 * 4}));
  EXPECT_EQ(follow({{n(3)}, {n(4)}, {kOne}}, {12}), (Shape{12 * 64}));
  EXPECT_EQ(follow({{kOne}, {n(12)}}, {1, 1, 12}), (Shape{64, 1, 12})) << "its old place";
  EXPECT_EQ(follow({{n(3)}, {kOne}, {n(4)}}, {3, 4}), std::nullopt) << "of the 3 or of the 4";
}

TEST(Factors, AreInheritedFromTheOperandWithThatDimension) {
  const Factor extent{14, 28};
  const Dimensions tokens{{kBatch, kLength}, {n(768)}};
  EXPECT_EQ(inherit_dimensions(std::vector<Dimensions>{tokens, numbers({768, 10})}, {256, 10}, {2048, 10}),
            (Dimensions{{kBatch, kLength}, {n(10)}}));
  EXPECT_EQ(inherit_dimensions(std::vector<Dimensions>{Dimensions{{kBatch}, {n(3)}}}, {2, 14}, {64, 28}),
            (Dimensions{{kBatch}, {extent}}))
      << "a size of its own";
  EXPECT_EQ(inherit_dimensions(std::vector<Dimensions>{tokens, Dimensions{{kLength, kBatch}, {n(768)}}}, {256, 768},
                               {2048, 768}),
            (Dimensions{{{256, 2048}}, {n(768)}}))
      << "in an order that is not known";
  EXPECT_EQ(
      inherit_dimensions(std::vector<Dimensions>{tokens, Dimensions{{{256, 2048}}, {n(768)}}}, {256, 768}, {2048, 768}),
      (Dimensions{{kBatch, kLength}, {n(768)}}))
      << "one operand knows more than the other";
}

// ---- content ----

std::optional<Tensor> continued(const Tensor& tensor, size_t axis, int64_t size) {
  return continue_pattern(tensor, axis, size, tensor);
}

TEST(Patterns, RepetitionsSequencesAndMasksContinue) {
  EXPECT_EQ(continued(floats({2, 2}, {7, 8, 7, 8}), 0, 3), floats({3, 2}, {7, 8, 7, 8, 7, 8}));
  EXPECT_EQ(continued(ramp({1, 4}).cast(DType::i64), 1, 6), ramp({1, 6}).cast(DType::i64));
  EXPECT_EQ(continued(ramp({1, 4}).cast(DType::i64), 1, 2), ramp({1, 2}).cast(DType::i64));
  EXPECT_EQ(continued(ints({2, 1}, {0, 7}), 0, 3), ints({3, 1}, {0, 7, 14})) << "the rows of a batch of two";
  const Tensor causal = floats({1, 3, 3}, {1, 0, 0, 1, 1, 0, 1, 1, 1}).cast(DType::boolean);
  const Tensor wider = continued(causal, 2, 4).value();
  EXPECT_EQ(wider.cast(DType::f32), floats({1, 3, 4}, {1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0}));
  EXPECT_EQ(continued(wider, 1, 4)->cast(DType::f32),
            floats({1, 4, 4}, {1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1}));
}

TEST(Patterns, RelativePositionsShrinkOnly) {
  const Tensor distances = ints({3, 3}, {0, 1, 2, -1, 0, 1, -2, -1, 0});
  EXPECT_EQ(continued(ints({3, 3}, {5, 1, 9, 7, 5, 1, 3, 7, 5}), 0, 2), ints({2, 3}, {5, 1, 9, 7, 5, 1}));
  EXPECT_EQ(continued(ints({3, 3}, {5, 1, 9, 7, 5, 1, 3, 7, 5}), 0, 4), std::nullopt);
  EXPECT_EQ(continued(distances, 0, 4), ints({4, 3}, {0, 1, 2, -1, 0, 1, -2, -1, 0, -3, -2, -1}))
      << "a sequence along each axis";
}

TEST(Patterns, AnythingElseIsNotContinued) {
  EXPECT_EQ(continued(ints({3}, {0, 1, 3}), 0, 2), std::nullopt);
  EXPECT_EQ(continued(ints({2}, {1, 2}), 0, 3), std::nullopt) << "two numbers are no sequence";
  EXPECT_EQ(continued(floats({3}, {0, 1, 2}), 0, 2), std::nullopt) << "weights are none";
}

// ---- whole graphs ----

Graph read_at(const TestModel& model, const std::map<std::string, Shape>& shapes) {
  return import_model(model.file(), {.shapes = shapes, .mode = ImportMode::as_exported}).graph;
}
Shape result_shape(const TestModel& model, const Shape& x) {
  const Graph graph = read_at(model, {{"x", x}});
  return graph.type(graph.output("y")).shape;
}
std::string error_at(const TestModel& model, const Shape& x) {
  return import_error(model, {.shapes = {{"x", x}}, .mode = ImportMode::as_exported});
}

// x [2, 4] tokens, embedded, plus a table's positions 0..3, plus a causal mask's row sums.
TestModel embedded(const Tensor& positions) {
  TestModel model;
  model.input("x", {2, 4}, onnx::TensorProto::INT64).weight("words", ramp({10, 3})).weight("table", ramp({6, 3}));
  model.weight("positions", positions);
  model.node("Gather", {"words", "x"}, {"w"}).node("Gather", {"table", "positions"}, {"p"}, {}, "lookup");
  return model.node("Add", {"w", "p"}, {"y"}, {}, "add").output("y");
}

TEST(OtherSizes, PositionIdsFollowAndTheTableBoundsThem) {
  for (const Tensor& positions : {ints({1, 4}, {0, 1, 2, 3}), ints({2, 4}, {0, 1, 2, 3, 0, 1, 2, 3})}) {
    EXPECT_EQ(result_shape(embedded(positions), {5, 3}), (Shape{5, 3, 3}));
    EXPECT_EQ(result_shape(embedded(positions), {1, 6}), (Shape{1, 6, 3}));
    EXPECT_THAT(error_at(embedded(positions), {5, 7}),
                AllOf(HasSubstr("node Add 'add': operand 'p'"), HasSubstr("table"), HasSubstr("at most that many")));
  }
  const ImportedModel model = import_model(embedded(ints({1, 4}, {0, 1, 2, 3})).file(), {.shapes = {{"x", {1, 2}}}});
  NamedTensors leaves = named(model.weights);
  leaves["x"] = ints({1, 2}, {9, 0});
  EXPECT_EQ(interpret(model.graph, leaves).outputs.at("y").values, (std::vector<double>{27, 29, 31, 3, 5, 7}));
}

TEST(OtherSizes, PositionsThatAreNoSequenceAreRefusedByName) {
  EXPECT_THAT(
      error_at(embedded(ints({1, 4}, {0, 1, 3, 2})), {2, 3}),
      AllOf(HasSubstr("node Add 'add': operand 'p' [1,4,3] was made for size 4 of axis 1, and how it follows to 3 "
                      "cannot be proven: its content is no repetition"),
            HasSubstr("exported at x=[2,4] and is read at x=[2,3]")));
}

TestModel masked() {
  TestModel model;
  model.input("x", {2, 3, 3}).weight("zero", floats({}, {0})).weight("low", floats({}, {-9}));
  model.weight("causal", floats({1, 3, 3}, {1, 0, 0, 1, 1, 0, 1, 1, 1}).cast(DType::boolean));
  model.weight("all", floats({2, 1, 1}, {1, 1}).cast(DType::boolean));
  model.node("And", {"causal", "all"}, {"m"}).node("Where", {"m", "zero", "low"}, {"f"});
  return model.node("Add", {"x", "f"}, {"y"}).output("y");
}

TEST(OtherSizes, CausalMasksFollow) {
  EXPECT_EQ(result_shape(masked(), {1, 2, 2}), (Shape{1, 2, 2})) << "a batch of 1 is no broadcast of the 2";
  const Graph graph = read_at(masked(), {{"x", {1, 4, 4}}});
  const NamedTensors leaves{{"x", ramp({1, 4, 4}, 0, 0)}};
  EXPECT_EQ(interpret(graph, leaves).outputs.at("y").values,
            (std::vector<double>{0, -9, -9, -9, 0, 0, -9, -9, 0, 0, 0, -9, 0, 0, 0, 0}));
}

TEST(OtherSizes, AdditiveMasksAreNoWeights) {
  const double hidden = -3.4e38;
  TestModel model;
  model.input("x", {2, 3, 3}).weight("w", ramp({3}, 1));
  model.weight("mask", floats({1, 3, 3}, {0, hidden, hidden, 0, 0, hidden, 0, 0, 0}));
  model.node("Mul", {"x", "w"}, {"a"}).node("Add", {"a", "mask"}, {"y"}).output("y");
  const ImportedModel imported = import_model(model.file(), {.shapes = {{"x", {5, 2, 3}}}});
  EXPECT_EQ(imported.weights.size(), 1u);
  EXPECT_THAT(imported.remarks, Contains("masks, tables of positions and coefficients stay as they are: 'mask'"));
  EXPECT_EQ(imported.graph.type(imported.graph.output("y")).shape, (Shape{5, 2, 3}));
}

TEST(OtherSizes, WhatWasMadeForTheBatchFollowsAComputedExpand) {
  // The recurrent state of an export by tracing: zeros of the exported batch, expanded to the batch of x.
  TestModel model;
  model.input("x", {2, 3}).weight("state", floats({2, 3}, {4, 5, 6, 4, 5, 6})).node("Shape", {"x"}, {"s"});
  model.node("Expand", {"state", "s"}, {"e"}).node("Add", {"x", "e"}, {"y"}).output("y");
  EXPECT_EQ(result_shape(model, {7, 3}), (Shape{7, 3}));
}

TEST(OtherSizes, LayersOverWhatWasMadeForTheBatchFollow) {
  // Learned queries, the same for every sample, normalised and projected before they meet the data.
  TestModel model;
  model.input("x", {2, 3, 4}).weight("queries", ramp({1, 3, 4})).weight("sizes", ints({3}, {2, 3, 4}));
  model.weight("scale", ramp({4}, 1)).weight("w", ramp({4, 4}, -1, 0.3)).weight("rows", ints({2}, {6, 4}));
  model.node("Expand", {"queries", "sizes"}, {"q"}).node("LayerNormalization", {"q", "scale"}, {"n"});
  model.node("Reshape", {"n", "rows"}, {"r"}).node("MatMul", {"r", "w"}, {"p"}).node("Reshape", {"p", "sizes"}, {"b"});
  model.node("Softmax", {"b"}, {"s"}).node("Add", {"x", "s"}, {"y"}).output("y");
  EXPECT_EQ(result_shape(model, {7, 3, 4}), (Shape{7, 3, 4}));
  const auto at_zero = [&](int64_t batch) {
    const ImportedModel imported = import_model(model.file(), {.shapes = {{"x", {batch, 3, 4}}}});
    NamedTensors leaves = named(imported.weights);
    leaves["x"] = ramp({batch, 3, 4}, 0, 0);
    return interpret(imported.graph, leaves).outputs.at("y").values;
  };
  std::vector<double> twice = at_zero(1);
  twice.insert(twice.end(), twice.begin(), twice.begin() + 12);
  EXPECT_EQ(at_zero(2), twice);
}

// A bias of each of two heads, written out for batch * heads.
TestModel biased_heads(double last) {
  TestModel model;
  model.input("x", {2, 2, 3}).weight("merged", ints({3}, {4, 1, 3}));
  model.weight("bias", ints({4, 1, 3}, {0, 1, 2, 0, 4, 9, 0, 1, 2, 0, 4, last}));
  model.node("Cast", {"bias"}, {"b"}, {{"to", int64_t{onnx::TensorProto::FLOAT}}});
  return model.node("Reshape", {"x", "merged"}, {"r"}).node("Add", {"r", "b"}, {"y"}, {}, "add").output("y");
}

TEST(OtherSizes, APatternThatTheBatchRepeatsFollows) {
  const Graph graph = read_at(biased_heads(9), {{"x", {3, 2, 3}}});
  EXPECT_EQ(interpret(graph, {{"x", ramp({3, 2, 3}, 0, 0)}}).outputs.at("y").values,
            (std::vector<double>{0, 1, 2, 0, 4, 9, 0, 1, 2, 0, 4, 9, 0, 1, 2, 0, 4, 9}));
  EXPECT_THAT(error_at(biased_heads(8), {3, 2, 3}),
              HasSubstr("node Add 'add': operand 'b' [4,1,3] was made for size 4 of axis 0"));
}

TestModel class_token(const Tensor& tokens) {
  TestModel model;
  model.input("x", {2, 3, 2}).weight("tokens", tokens).weight("unused", ramp({1}));
  return model.node("Concat", {"tokens", "x"}, {"y"}, {{"axis", int64_t{1}}}, "cat").output("y");
}

TEST(OtherSizes, AWeightThatRepeatsOneValueIsTrainedAsThatValue) {
  const TestModel model = class_token(floats({2, 1, 2}, {7, 8, 7, 8}));
  const ImportedModel imported = import_model(model.file(), {.batch = 3});
  EXPECT_EQ(imported.weights.at("tokens"), floats({1, 1, 2}, {7, 8}));
  EXPECT_EQ(imported.graph.type(imported.graph.output("y")).shape, (Shape{3, 4, 2}));
  EXPECT_THAT(imported.remarks, Contains(HasSubstr("trained as that value: 'tokens'")));
  EXPECT_EQ(import_model(model.file()).weights.at("tokens"), floats({1, 1, 2}, {7, 8})) << "at the exported batch too";
  EXPECT_EQ(import_model(class_token(floats({2, 1, 2}, {7, 8, 7, 9})).file()).weights.at("tokens").type.shape,
            (Shape{2, 1, 2}));
  EXPECT_THAT(error_at(class_token(floats({2, 1, 2}, {7, 8, 7, 9})), {3, 3, 2}),
              HasSubstr("initializer 'tokens' of [2,1,2] has a value of its own for every place of axis 0"));
}

TEST(OtherSizes, SlicesAndPositionsThatMayDependOnTheSizeAreRefused) {
  const auto sliced = [](int64_t start, int64_t end) {
    TestModel model;
    const double s = static_cast<double>(start), e = static_cast<double>(end);
    model.input("x", {1, 8}).weight("s", ints({1}, {s})).weight("e", ints({1}, {e})).weight("a", ints({1}, {1}));
    return model.node("Slice", {"x", "s", "e", "a"}, {"y"}, {}, "cut").output("y");
  };
  EXPECT_EQ(result_shape(sliced(0, 8), {1, 12}), (Shape{1, 12})) << "the whole";
  EXPECT_EQ(result_shape(sliced(1, 1 << 30), {1, 12}), (Shape{1, 11}));
  EXPECT_EQ(result_shape(sliced(0, -1), {1, 12}), (Shape{1, 11}));
  EXPECT_EQ(result_shape(sliced(0, 3), {1, 12}), (Shape{1, 3}));
  EXPECT_THAT(error_at(sliced(0, 4), {1, 12}), HasSubstr("node Slice 'cut': its position 4 was exported for size 8"));
  EXPECT_THAT(error_at(sliced(0, 7), {1, 12}), HasSubstr("cannot be proven"));
  TestModel gather;
  gather.input("x", {1, 8})
      .weight("i", ints({}, {7}))
      .node("Gather", {"x", "i"}, {"y"}, {{"axis", int64_t{1}}}, "last");
  EXPECT_THAT(error_at(gather.output("y"), {1, 12}), HasSubstr("node Gather 'last': its position 7"));
  TestModel split;
  split.input("x", {1, 8}).weight("s", ints({2}, {4, 4}));
  split.node("Split", {"x", "s"}, {"y", "z"}, {{"axis", int64_t{1}}}, "halves").output("y");
  EXPECT_THAT(error_at(split, {1, 12}), HasSubstr("node Split 'halves': split [4,4] was exported for size 8"));
}

TEST(OtherSizes, GroupedKeysAreNotTakenForTheBatch) {
  // Two copies of each head at batch 2: the copies stay two.
  TestModel model;
  model.input("x", {2, 3, 5}).weight("copies", ints({4}, {2, 3, 2, 5})).weight("heads", ints({3}, {2, 6, 5}));
  model.weight("axis", ints({1}, {2})).node("Unsqueeze", {"x", "axis"}, {"u"}).node("Expand", {"u", "copies"}, {"e"});
  model.node("Reshape", {"e", "heads"}, {"y"}).output("y");
  EXPECT_EQ(result_shape(model, {7, 3, 5}), (Shape{7, 6, 5}));
}

TEST(OtherSizes, TheModelsOwnArithmeticStands) {
  // y = x transposed by a reshape to its own sizes in reverse order: no factor proof, but computed from the shape.
  TestModel model;
  model.input("x", {2, 4}).node("Shape", {"x"}, {"s"}).weight("order", ints({2}, {1, 0}));
  model.node("Gather", {"s", "order"}, {"t"}).node("Reshape", {"x", "t"}, {"y"}).output("y");
  EXPECT_EQ(result_shape(model, {6, 4}), (Shape{4, 6}));
  EXPECT_EQ(result_shape(model, {6, 5}), (Shape{5, 6}));
}

TEST(OtherSizes, AStridedViewOfEverythingFollows) {
  TestModel model;
  model.input("x", {2, 3}).weight("flat", ints({1}, {-1})).weight("i", ramp({2, 3, 1}).cast(DType::i64));
  model.node("Reshape", {"x", "flat"}, {"f"}).node("Gather", {"f", "i"}, {"y"}).output("y");
  EXPECT_EQ(result_shape(model, {7, 3}), (Shape{7, 3, 1}));
}

TEST(OtherSizes, AConvolutionsExtentIsASizeOfItsOwn) {
  TestModel model;
  model.input("x", {2, 1, 8, 8}).weight("w", ramp({3, 1, 2, 2})).weight("target", ints({3}, {2, 3, 16}));
  model.node("Conv", {"x", "w"}, {"c"}, {{"strides", Ints{2, 2}}}).node("Reshape", {"c", "target"}, {"y"}).output("y");
  EXPECT_EQ(result_shape(model, {5, 1, 12, 10}), (Shape{5, 3, 30}));
}

}  // namespace
}  // namespace halfstep::test
