// Quantisation: its values against the ONNX reference, and what passes through it backwards.
#include <gtest/gtest.h>

#include "ir/interpret.h"
#include "operator_cases.h"
#include "passes/model/attach_loss.h"
#include "passes/rewrite/expand_composites.h"
#include "passes/training/differentiate.h"

namespace halfstep::test {
namespace {

Tensor bytes(const Shape& shape, const std::vector<double>& values) {
  return Tensor::from_values({DType::u8, shape}, values);
}

}  // namespace

std::vector<Case> quantization_cases() {
  const auto i8 = [](const Shape& shape, const std::vector<double>& values) {
    return known(Tensor::from_values({DType::i8, shape}, values));
  };
  return {
      {"QuantizeLinear", 10, {x({5}, {0.5, 1.5, -3, 2000, 0}), x({}, {1})}, {}, {{0, 2, 0, 255, 0}}},
      // A half goes to the even number before an odd zero point is added.
      {"QuantizeLinear", 13, {x({3}, {0.5, 1.5, -999}), x({}, {1}), i8({}, {3})}, {}, {{3, 5, -128}}},
      {"QuantizeLinear", 13, {x({1, 2}, {4, 9}), x({2}, {2, 3}), known(bytes({2}, {1, 10}))}, {}, {{3, 13}}},
      {"QuantizeLinear",
       21,
       {x({2, 1}, {4, -9}), x({2}, {2, 3})},
       {{"axis", int64_t{0}}, {"output_dtype", int64_t{3}}},
       {{2, -3}}},
      {"DequantizeLinear", 10, {known(bytes({2}, {0, 255})), x({}, {2}), known(bytes({}, {128}))}, {}, {{-256, 254}}},
      {"DequantizeLinear", 13, {i8({1, 2}, {-128, 5}), x({2}, {2, 3}), i8({2}, {1, 0})}, {}, {{-258, 15}}},
      {"DynamicQuantizeLinear", 11, {x({4}, {-1, 0, 1, 4.1})}, {}, {{0, 50, 100, 255}, {0.02}, {50}}},
      {"DynamicQuantizeLinear", 11, {x({2}, {0, 0})}, {}, {{0, 0}, {1.0 / 255}, {0}}},
  };
}

namespace {

TEST(Quantization, TrainsAsIfNothingWereRoundedWithinTheRange) {
  for (const bool zero_point : {false, true}) {
    TestModel model(13);
    model.weight("w", floats({3}, {0.26, 0.74, 90})).weight("scale", floats({}, {0.25}));
    model.weight("zero", bytes({}, {7}));
    const std::vector<std::string> more =
        zero_point ? std::vector<std::string>{"scale", "zero"} : std::vector<std::string>{"scale"};
    const auto with = [&](std::string x) {
      std::vector<std::string> operands{std::move(x)};
      operands.insert(operands.end(), more.begin(), more.end());
      return operands;
    };
    model.node("QuantizeLinear", with("w"), {"q"}).node("DequantizeLinear", with("q"), {"y"}).output("y");
    const Graph forward =
        attach_loss(import_model(model.file()).graph, {{.kind = "mean_squared_error", .output = "y"}});
    NamedTensors leaves{{"w", floats({3}, {0.26, 0.74, 90})}, {"scale", floats({}, {0.25})}};
    for (const Node& node : forward.nodes())
      if (node.op->name == "input") leaves[node.attributes.text("name")] = Tensor(node.results[0]);
    const auto found =
        interpret(expand_composites(differentiate(forward)), leaves).outputs.at({Role::gradient, "w"}).values;
    ASSERT_EQ(found.size(), 3u);
    EXPECT_NEAR(found[0], 2 * 0.25 / 3, 1e-6);
    EXPECT_NEAR(found[1], 2 * 0.75 / 3, 1e-6);
    EXPECT_EQ(found[2], 0) << "outside the range";
  }
}

TEST(Quantization, OtherTypesAndBlocksThatDoNotFitAreRefused) {
  TestModel wide(21);
  wide.input("x", {2}).weight("scale", floats({}, {1}));
  wide.node("QuantizeLinear", {"x", "scale"}, {"y"}, {{"output_dtype", int64_t{6}}}, "q").output("y");
  EXPECT_NE(import_error(wide).find("node QuantizeLinear 'q': quantisation to"), std::string::npos);
  TestModel blocks(21);
  blocks.input("x", {1, 5}).weight("scale", floats({1, 2}, {1, 2}));
  blocks.node("QuantizeLinear", {"x", "scale"}, {"y"}, {{"block_size", int64_t{2}}}, "q").output("y");
  EXPECT_NE(import_error(blocks).find("[1,3] expected for blocks of 2, found [1,2]"), std::string::npos);
}

}  // namespace
}  // namespace halfstep::test
