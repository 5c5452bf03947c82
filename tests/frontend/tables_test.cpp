// Which initializers are weights, and which an exporter computed.
#include <gmock/gmock.h>

#include <cmath>
#include <functional>

#include "frontend/diagnose/diagnostics.h"
#include "frontend/repairs/read_model.h"
#include "ir/op.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

Tensor filled(const Shape& shape, const std::function<double(int64_t row, int64_t column)>& element) {
  Tensor tensor(TensorType{DType::f32, shape});
  for (int64_t i = 0; i < tensor.type.element_count(); ++i)
    tensor.set(i, element(shape.size() > 1 ? i / shape.back() % shape[shape.size() - 2] : 0, i % shape.back()));
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

TEST(Tables, WhatMustBeKnownIsNotTrained) {
  TestModel model(17);
  model.input("x", {2, 3}).weight("table", floats({3}, {2, 1, 2})).node("Unique", {"table"}, {"values"}, {}, "unique");
  model.weight("w", ramp({2, 2})).node("MatMul", {"values", "w"}, {"y"}, {}, "fc").output("y");
  EXPECT_THAT(
      import_error(model, {.train = {"table"}}),
      testing::HasSubstr("operand X 'table' must be known when the model is compiled, but it is to be trained"));
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
  for (const double hidden : std::initializer_list<double>{-1e4, -1e9, -3.4e38, -INFINITY})
    for (const Shape& shape : {Shape{3, 4}, Shape{1, 3, 4}, Shape{4}}) {
      const auto last = [&](int64_t, int64_t column) { return column > 2 ? hidden : 0; };
      EXPECT_FALSE(parameter("mask", filled(shape, last), {2, 3, 4})) << hidden << " " << to_string(shape);
    }
  EXPECT_TRUE(parameter("shift", filled({4}, [](int64_t, int64_t c) { return c > 2 ? -150 : 0; })));
}

TEST(Tables, OnesAndZerosThatChooseAreConstants) {
  const auto triangle = [](int64_t row, int64_t column) { return column <= row ? 1 : 0; };
  for (const char* name : {"mask", "attn.bias", "slice_2"})
    EXPECT_FALSE(parameter(name, filled({1, 1, 4, 4}, triangle), {2, 1, 4, 4})) << name;
  EXPECT_FALSE(parameter("weight_mask", filled({4, 4}, [](int64_t r, int64_t c) { return (r * 7 + c * 3) % 5 < 3; })));
  EXPECT_FALSE(parameter("mul_1", filled({4, 4}, [](int64_t r, int64_t c) { return c > r ? 1e4 : 0; })));
  EXPECT_FALSE(parameter("bias", filled({4, 4}, [](int64_t r, int64_t c) { return c > r ? -1e9 : 0; })));
  EXPECT_FALSE(
      parameter("two", filled({4, 4}, [](int64_t r, int64_t c) { return c > r ? -1e4 * static_cast<double>(c) : 0; })));
  EXPECT_TRUE(parameter("w", filled({4, 4}, [](int64_t r, int64_t c) { return r == c; }))) << "an identity";
  EXPECT_TRUE(parameter("b", filled({2, 4}, [](int64_t, int64_t c) { return c > 1; }), {2, 2, 4})) << "forget gates";
  EXPECT_TRUE(parameter("w", filled({4, 4}, [](auto, auto) { return 1; })));
  EXPECT_TRUE(parameter("position.bias", ramp({4, 4}, 0, 0.1)));
}

// As states they would be read in half precision, which turns a row of them into infinities.
TEST(Tables, FrozenMasksAreConstantsToo) {
  TestModel model;
  model.input("x", {2, 4, 4}).weight("mask", filled({4, 4}, [](auto row, auto column) {
                                       return column > row ? -3.4e38 : 0;
                                     }));
  model.weight("w", ramp({4}, 1)).weight("frozen", ramp({4}, 1));
  model.node("Mul", {"x", "w"}, {"a"})
      .node("Add", {"a", "mask"}, {"b"})
      .node("Add", {"b", "frozen"}, {"y"})
      .output("y");
  const Graph graph = import_model(model.file(), {.freeze = {"mask", "frozen"}}).graph;
  EXPECT_FALSE(graph.leaf("mask"));
  EXPECT_EQ(graph.node(graph.leaf("frozen")).op->name, "state");
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

// ---- scalars ----

bool is_parameter(const TestModel& model, const std::string& name, const ImportOptions& options = {}) {
  return static_cast<bool>(import_model(model.file(), options).graph.leaf(name));
}

// y = (x fc.weight) op scalar
TestModel with_scalar(const std::string& name, double value, const std::string& op) {
  TestModel model;
  model.input("x", {2, 4}).weight("fc.weight", ramp({4, 4})).weight(name, floats({}, {value}));
  model.node("MatMul", {"x", "fc.weight"}, {"a"}).node(op, {"a", name}, {"y"}).output("y");
  return model;
}

TEST(Scalars, WhatScalesOrShiftsActivationsIsAParameter) {
  EXPECT_TRUE(is_parameter(with_scalar("logit_scale", 2.6592, "Mul"), "logit_scale"));
  EXPECT_TRUE(is_parameter(with_scalar("blocks.0.alpha", 0, "Mul"), "blocks.0.alpha")) << "ReZero starts at 0";
  EXPECT_TRUE(is_parameter(with_scalar("temperature", 0.07, "Div"), "temperature"));
  EXPECT_TRUE(is_parameter(with_scalar("head.bias", 0, "Add"), "head.bias"));
  TestModel exponential = with_scalar("unread", 1.23, "Mul");
  exponential.weight("logit_scale", floats({}, {2.6592})).node("Exp", {"logit_scale"}, {"e"});
  exponential.node("Mul", {"e", "y"}, {"z"}).output("z");
  EXPECT_TRUE(is_parameter(exponential, "logit_scale"));
  EXPECT_EQ(import_model(exponential.file(), {.weights = InitialWeights::fresh}).weights.at("logit_scale").at(0),
            static_cast<double>(2.6592f))
      << "no rule says where else it would start";
}

// x / (2 sigma^2); where(|w| < 0.5, ...) as PyTorch writes a lerp; x (W gain).
TEST(Scalars, WhatIsComputedOfThemAndConstantsAlone) {
  TestModel model = with_scalar("unread", 1.23, "Mul");
  model.weight("sigma", floats({}, {0.7})).weight("two", floats({}, {2})).weight("half", floats({}, {0.5}));
  model.node("Pow", {"sigma", "two"}, {"square"}).node("Mul", {"two", "square"}, {"twice"});
  model.node("Div", {"y", "twice"}, {"scaled"});
  model.weight("gain", floats({}, {0.37})).weight("W", ramp({4, 4})).node("Mul", {"W", "gain"}, {"gained"});
  model.node("MatMul", {"scaled", "gained"}, {"product"});
  model.weight("share", floats({}, {0.3})).node("Less", {"share", "half"}, {"low"});
  model.node("Mul", {"product", "share"}, {"part"}).node("Where", {"low", "part", "product"}, {"z"}).output("z");
  for (const char* name : {"sigma", "gain", "share"}) EXPECT_TRUE(is_parameter(model, name)) << name;
  for (const char* name : {"two", "half"}) EXPECT_FALSE(is_parameter(model, name)) << name;
}

TEST(Scalars, CheckNamesThoseThatAreComputedWithInAnotherWay) {
  TestModel model = with_scalar("exponent", 1.3, "Pow");
  EXPECT_THAT(check_model(read_model(model.file())).findings,
              testing::Contains(testing::Field(&Finding::text, testing::HasSubstr("stay as they are: 'exponent'"))));
}

// A path for each way through forty squares.
TEST(Scalars, AreFoundInTimeLinearInTheFile) {
  TestModel model = with_scalar("alpha", 0.3, "Mul");
  std::string value = "alpha";
  for (int i = 0; i < 40; ++i) {
    const std::string next = "a" + std::to_string(i);
    model.node("Exp", {value}, {next + "e"}).node("Mul", {value, next + "e"}, {next});
    value = next;
  }
  model.node("Mul", {value, "y"}, {"z"}).output("z");
  EXPECT_TRUE(is_parameter(model, "alpha"));
}

// Nothing to read, as a file may have it.
TEST(Scalars, NodesWithoutResultsAreNoReaders) {
  TestModel model = with_scalar("alpha", 0.3, "Mul");
  model.node("Less", {"alpha", "x"}, {});
  EXPECT_NO_THROW(check_model(read_model(model.file())));
}

TEST(StraightThrough, IsToldWhereTheDifferenceHasNoGradientEither) {
  TestModel model = with_scalar("alpha", 0.3, "Mul");
  model.node("Tanh", {"y"}, {"t"}).node("Sub", {"t", "y"}, {"d"}).node("Add", {"y", "d"}, {"z"}).output("z");
  EXPECT_THAT(check_model(read_model(model.file())).findings,
              testing::Not(testing::Contains(testing::Field(&Finding::kind, "straight through"))));
}

TEST(StraightThrough, IsTold) {
  TestModel model = with_scalar("alpha", 0.3, "Mul");
  model.node("Round", {"y"}, {"r"}).node("Sub", {"r", "y"}, {"d"}).node("Add", {"y", "d"}, {"z"}).output("z");
  EXPECT_THAT(check_model(read_model(model.file())).findings,
              testing::Contains(testing::Field(&Finding::kind, "straight through")));
}

TEST(Scalars, NumbersOfFormulasAreConstants) {
  for (const double value : {2.0, 0.5, 1e-5, 0.125, 1 / std::sqrt(48.0), std::sqrt(768.0), 0.044715, 1.702, -1.0})
    EXPECT_FALSE(is_parameter(with_scalar("scale", value, "Mul"), "scale")) << value;
  for (const char* name : {"val_3", "onnx::Mul_12", "mul_3", "scalar_tensor_default", "Constant_output_0", "/layer/Mul",
                           "const_fold_opt__12", "model/activation/mul/y:0", "lifted_tensor_0", "12"})
    EXPECT_FALSE(is_parameter(with_scalar(name, 0.3, "Mul"), name)) << name;
  EXPECT_FALSE(is_parameter(with_scalar("exponent", 1.3, "Pow"), "exponent"));
  EXPECT_FALSE(is_parameter(with_scalar("bound", 1.3, "Max"), "bound"));
  EXPECT_FALSE(is_parameter(with_scalar("offset", 1, "Add"), "offset")) << "1 + x";
}

TEST(Scalars, TheUserDecides) {
  EXPECT_TRUE(is_parameter(with_scalar("val_3", 0.5, "Mul"), "val_3", {.train = {"val_*"}}));
  const Graph graph = import_model(with_scalar("alpha", 0, "Mul").file(), {.freeze = {"al*"}}).graph;
  EXPECT_EQ(graph.node(graph.leaf("alpha")).op->name, "state");
  EXPECT_THAT(import_error(with_scalar("alpha", 0, "Mul"), {.train = {"gamma"}, .freeze = {"alpa"}}),
              testing::AllOf(testing::HasSubstr("freeze: no initializer is called 'alpa'; did you mean 'alpha'?"),
                             testing::HasSubstr("train: no initializer is called 'gamma'")));
}

TEST(Scalars, WhatIsReadAsAConstantCannotBeTrained) {
  TestModel model;
  model.input("x", {2, 3}).weight("w", ramp({3, 3}, 0, 0.1)).weight("filler", Tensor::scalar(DType::f32, 0.5));
  model.weight("pads", Tensor({DType::i64, {4}}));
  model.node("MatMul", {"x", "w"}, {"h"}).node("Pad", {"h", "pads", "filler"}, {"y"}, {}, "pad").output("y");
  EXPECT_THAT(import_error(model, {.train = {"fil*"}}),
              testing::HasSubstr("train: tensor 'filler' cannot be trained: what reads it takes it as a constant"));
  import_model(model.file(), {.train = {"w"}});
  import_model(model.file(), {.train = {"*"}});
}

// ---- Constant nodes ----

TEST(ConstantNodes, WeightsAmongThemAreParameters) {
  TestModel model;
  model.input("x", {2, 3, 4, 4}).node("Constant", {}, {"w"}, {{"value", ramp({2, 3, 1, 1}, 0, 0.1)}});
  model.node("Constant", {}, {"b"}, {{"value", ramp({2})}})
      .node("Constant", {}, {"shape"}, {{"value", ints({4}, {1, 2, 1, 1})}});
  model.node("Constant", {}, {"mask"}, {{"value", ramp({1, 1, 4, 4})}});
  model.node("Conv", {"x", "w"}, {"c"}).node("Reshape", {"b", "shape"}, {"row"}).node("Add", {"c", "row"}, {"s"});
  model.node("Add", {"s", "mask"}, {"y"}).output("y");
  EXPECT_TRUE(is_parameter(model, "w"));
  EXPECT_TRUE(is_parameter(model, "b"));
  EXPECT_FALSE(is_parameter(model, "mask"));
  EXPECT_THAT(check_model(read_model(model.file())).findings,
              testing::Contains(testing::Field(&Finding::text, testing::HasSubstr("stay as they are: 'mask'"))));
  model.proto.set_producer_name("pytorch");
  EXPECT_THAT(import_error(model, {}), testing::HasSubstr("nothing to train"));
}

TEST(ConstantNodes, NormsWrittenOutHaveTheirScalesAndShifts) {
  TestModel model;
  model.input("x", {2, 8}).node("Constant", {}, {"g"}, {{"value", ramp({8}, 1, 0.1)}});
  model.node("Constant", {}, {"b"}, {{"value", ramp({8}, 0, 0.3)}})
      .node("Constant", {}, {"std"}, {{"value", ramp({8}, 1, 0.2)}});
  model.node("ReduceMean", {"x"}, {"m"}, {{"axes", Ints{-1}}})
      .node("Sub", {"x", "m"}, {"d"})
      .node("Mul", {"d", "d"}, {"q"});
  model.node("ReduceMean", {"q"}, {"v"}, {{"axes", Ints{-1}}})
      .node("Sqrt", {"v"}, {"r"})
      .node("Div", {"d", "r"}, {"n"});
  model.node("Mul", {"n", "g"}, {"s"}).node("Add", {"s", "b"}, {"t"}).node("Mul", {"t", "std"}, {"y"}).output("y");
  EXPECT_TRUE(is_parameter(model, "g"));
  EXPECT_TRUE(is_parameter(model, "b"));
  EXPECT_FALSE(is_parameter(model, "std"));
}

}  // namespace
}  // namespace halfstep::test
