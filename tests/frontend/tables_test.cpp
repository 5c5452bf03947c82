// Which initializers are weights, and which an exporter computed.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "ir/op.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

Tensor filled(const Shape& shape, const std::function<double(int64_t row, int64_t column)>& element) {
  Tensor tensor(TensorType{DType::f32, shape});
  for (int64_t i = 0; i < tensor.type.element_count(); ++i)
    tensor.set(i, element(i / shape.back() % shape[shape.size() - 2], i % shape.back()));
  return tensor;
}

// The shape of the parameter that the initializer becomes; absent if it becomes none.
std::optional<Shape> parameter(const std::string& name, const Tensor& tensor, const Shape& input = {2, 4, 4}) {
  TestModel model;
  model.input("x", input).weight(name, tensor).weight("fc.weight", ramp({input.back()}));
  model.node("Mul", {"x", "fc.weight"}, {"a"}).node("Add", {"a", name}, {"y"}).output("y");
  const Graph graph = import_model(model.file(), {.weights = InitialWeights::none}).graph;
  const Value leaf = graph.leaf(name);
  return leaf ? std::optional(graph.type(leaf).shape) : std::nullopt;
}

TEST(Tables, WhatPeopleTrainIsAParameter) {
  EXPECT_EQ(parameter("pos_embedding", ramp({4, 4}, 0, 0.1)), (Shape{4, 4}));
  EXPECT_EQ(parameter("val_7", ramp({4, 4}, 0, 0.1)), (Shape{4, 4}));
  EXPECT_EQ(parameter("gain", floats({1}, {2})), Shape{1}) << "one number, but nobody's temporary";
  EXPECT_EQ(parameter("head.bias", floats({1}, {2})), Shape{1});
  EXPECT_EQ(parameter("scale", filled({4, 4}, [](auto, auto) { return 1; })), (Shape{4, 4}));
}

TEST(Tables, MasksAreConstants) {
  const auto causal = [](int64_t row, int64_t column) { return column > row ? -INFINITY : 0; };
  EXPECT_FALSE(parameter("val_140", filled({2, 4, 4}, causal)));
  EXPECT_FALSE(parameter("attention.causal_mask", filled({4, 4}, causal)));
  EXPECT_FALSE(parameter("val_3", filled({2, 1, 4, 4}, [](auto, auto) { return 0; }), {2, 2, 4, 4}));
  EXPECT_FALSE(parameter("unsqueeze_11", filled({4, 4}, [&](int64_t r, int64_t c) { return c > r ? -100 : 0; })));
  EXPECT_TRUE(parameter("unsqueeze_12", filled({4, 4}, [&](int64_t r, int64_t c) { return c > r ? -100 - r : 0; })));
  EXPECT_TRUE(parameter("fc2.weight", filled({4, 4}, causal))) << "a broken weight is the user's to see";
}

TEST(Tables, BiasesThatGrowWithTheDistanceAreConstants) {
  const auto linear = [](int64_t row, int64_t column) { return std::pow(0.5, row) * static_cast<double>(column); };
  EXPECT_FALSE(parameter("view", filled({4, 4}, linear)));
  EXPECT_FALSE(parameter("alibi", filled({4, 4}, [&](int64_t r, int64_t c) { return -linear(r, 3 - c); })));
  EXPECT_TRUE(parameter("alibi", filled({4, 4}, [&](int64_t r, int64_t c) { return linear(r, c * c); })));
}

TEST(Tables, CoordinatesAreConstants) {
  const auto grid = [](const std::function<double(int64_t, int64_t)>& second) {
    Tensor tensor(TensorType{DType::f32, {1, 4, 4, 2}});
    for (int64_t i = 0; i < 16; ++i)
      tensor.set(2 * i, std::log(1.5 + static_cast<double>(i / 4))), tensor.set(2 * i + 1, second(i / 4, i % 4));
    return tensor;
  };
  const auto wave = [](int64_t, int64_t column) { return std::sqrt(static_cast<double>(column)); };
  EXPECT_FALSE(parameter("attn.relative_coords_table", grid(wave), {1, 4, 4, 2}));
  EXPECT_FALSE(parameter(
      "view_4", floats({6, 3, 1}, {-0.5, -1, 1, 0.5, -1, 1, -0.5, 0, 1, 0.5, 0, 1, -0.5, 1, 1, 0.5, 1, 1}), {6, 3, 1}))
      << "the points that an affine transformation moves";
  EXPECT_TRUE(parameter("copies", floats({2, 2, 2}, {1, 2, 3, 4, 1, 2, 3, 4}), {2, 2, 2}));
  EXPECT_TRUE(parameter("map", grid([](int64_t row, int64_t column) { return row * column * column; }), {1, 4, 4, 2}));
}

TEST(Tables, OneNumberIsAConstantWhereAnOperatorMadeIt) {
  const auto number = [](auto, auto) { return 0.5; };
  for (const char* name : {"full_like", "zeros_3", "where_12"}) EXPECT_FALSE(parameter(name, filled({4, 4}, number)));
  for (const char* name : {"full_like_", "expand_3", "m.zeros", "where"})
    EXPECT_TRUE(
        parameter(name, filled({4, 4}, [&](int64_t r, int64_t) { return number(0, 0) + static_cast<double>(r); })));
  EXPECT_TRUE(parameter("expand_3", filled({4, 4}, number)));
}

TEST(Tables, RotaryAndSinusoidalTablesAreConstants) {
  const auto cosine = [](int64_t row, int64_t column) {
    return std::cos(static_cast<double>(row) / (1 + 9.0 * static_cast<double>(column % 2)));
  };
  EXPECT_FALSE(parameter("unsqueeze_16", filled({1, 4, 4}, cosine)));
  const auto mixed = [](int64_t row, int64_t column) {
    const double angle = static_cast<double>(row) / std::pow(100.0, static_cast<double>(column / 2));
    return column % 2 ? std::cos(angle) : std::sin(angle);
  };
  EXPECT_FALSE(parameter("encoder.pe", filled({4, 4}, mixed)));
  EXPECT_TRUE(parameter("encoder.table", filled({4, 4}, [&](int64_t r, int64_t c) {
                          return mixed(r, c) + 0.01 * static_cast<double>(r);
                        })));
}

TEST(Tables, FrequenciesOfARotaryEmbeddingAreConstants) {
  EXPECT_FALSE(parameter("rotary.inv_freq", floats({4}, {1, 0.1, 0.01, 0.001})));
  EXPECT_TRUE(parameter("rotary.gain", floats({4}, {1, 1, 1, 1})));
  EXPECT_TRUE(parameter("rotary.gain", floats({4}, {1, 0.1, 0.01, 0.002})));
}

TEST(Tables, OneCoefficientUnderANumberIsAConstant) { EXPECT_FALSE(parameter("val_82", floats({1}, {0.5}))); }

TEST(Tables, OnesAndZerosUnderANumberAreConstants) {
  EXPECT_FALSE(parameter("val_8", floats({4}, {1, 1, 1, 1})));
  EXPECT_FALSE(parameter("val_9", floats({4}, {0, 0, 0, 0})));
  EXPECT_TRUE(parameter("val_9", floats({4}, {2, 2, 2, 2})));
  EXPECT_TRUE(parameter("val_9", filled({4, 4}, [](auto, auto) { return 0; }))) << "a weight that starts at zero";
  EXPECT_TRUE(parameter("norm.weight", floats({4}, {1, 1, 1, 1})));
}

// mask[1:3] = 2
TEST(Tables, WhatIsAssignedToAPartIsAConstant) {
  TestModel model;
  model.input("x", {4, 2}).weight("fc.weight", ramp({2})).weight("val_1", floats({2, 2}, {2, 2, 2, 2}));
  model.weight("rows", ints({2, 1}, {1, 2})).weight("kept", floats({2, 2}, {2, 2, 2, 2}));
  model.node("Mul", {"x", "fc.weight"}, {"a"}).node("ScatterND", {"a", "rows", "val_1"}, {"b"});
  model.node("ScatterND", {"b", "rows", "kept"}, {"y"}).output("y");
  const Graph graph = import_model(model.file(), {.weights = InitialWeights::none}).graph;
  EXPECT_FALSE(graph.leaf("val_1"));
  EXPECT_TRUE(graph.leaf("kept"));
}

TEST(Tables, CopiesForTheExportedBatchAreOneWeight) {
  const Tensor copies = floats({2, 1, 4}, {1, 2, 3, 4, 1, 2, 3, 4});
  EXPECT_EQ(parameter("expand", copies), (Shape{1, 1, 4}));
  EXPECT_EQ(parameter("expand", floats({2, 1, 4}, {1, 2, 3, 4, 5, 6, 7, 8})), (Shape{2, 1, 4}));
  EXPECT_EQ(parameter("expand", floats({2, 1, 4}, {0, 0, 0, 0, 0, 0, 0, 0})), (Shape{1, 1, 4})) << "a fresh weight";
}

TEST(Tables, CopiesForTheExportedLengthAreOneWeightToo) {
  std::vector<double> values;
  for (int i = 0; i < 8; ++i) values.insert(values.end(), {1, 2, 3, 4});
  EXPECT_EQ(parameter("embedding_1", floats({2, 4, 4}, values)), (Shape{1, 1, 4}));
  for (size_t i : {5, 21}) values[i] = 7;
  EXPECT_EQ(parameter("embedding_1", floats({2, 4, 4}, values)), (Shape{1, 4, 4}));
}

}  // namespace
}  // namespace halfstep::test
