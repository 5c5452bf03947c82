// Gradients that a model takes of itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_model.h"

namespace halfstep::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Names = std::vector<std::string>;

// h = x * x, y = h * z.
TestModel product() {
  return TestModel()
      .input("x", {2})
      .input("z", {2})
      .input("other", {2})
      .node("Mul", {"x", "x"}, {"h"})
      .node("Mul", {"h", "z"}, {"y"});
}

TestModel& take_gradient(TestModel& model, const Names& operands, const Names& results, const AttributeList& names) {
  model.node("ai.onnx.preview.training.Gradient", operands, results, names);
  for (const std::string& result : results) model.output(result);
  return model;
}

std::vector<double> gradient(TestModel model, const Names& operands, const AttributeList& names) {
  return evaluate(take_gradient(model, operands, {"gradient"}, names),
                  {{"x", floats({2}, {1, -3})}, {"z", floats({2}, {5, 7})}, {"other", floats({2}, {10, 20})}})
      .at("gradient");
}

std::string gradient_error(TestModel model, const Names& operands, const AttributeList& names) {
  return import_error(take_gradient(model, operands, {"gradient"}, names));
}

TEST(Gradient, OfAnInput) {
  EXPECT_THAT(gradient(product(), {"x", "z"}, {{"xs", Names{"x"}}, {"zs", Names{"z"}}, {"y", std::string("y")}}),
              ElementsAre(2 * 1 * 5, 2 * -3 * 7));
}

TEST(Gradient, ReadsTheInputsThatItDoesNotName) {
  EXPECT_THAT(gradient(product(), {"x"}, {{"xs", Names{"x"}}, {"y", std::string("y")}}),
              ElementsAre(2 * 1 * 5, 2 * -3 * 7));
}

TEST(Gradient, OfWhatLiesBetween) {
  EXPECT_THAT(gradient(product(), {"h"}, {{"xs", Names{"h"}}, {"y", std::string("y")}}), ElementsAre(5, 7));
}

TEST(Gradient, WhereAnotherValueIsGiven) {
  EXPECT_THAT(gradient(product(), {"other", "x"}, {{"xs", Names{"x"}}, {"zs", Names{"z"}}, {"y", std::string("y")}}),
              ElementsAre(2 * 10 * 1, 2 * 20 * -3));
}

TEST(Gradient, NamedTensorsAreIndependent) {
  EXPECT_THAT(gradient(product(), {"x", "h"}, {{"xs", Names{"x"}}, {"zs", Names{"h"}}, {"y", std::string("y")}}),
              ElementsAre(0, 0));
}

TEST(Gradient, OfAGradient) {
  TestModel model = product();
  take_gradient(model, {"x"}, {"first"}, {{"xs", Names{"x"}}, {"y", std::string("y")}});
  EXPECT_THAT(gradient(model, {"x"}, {{"xs", Names{"x"}}, {"y", std::string("first")}}), ElementsAre(2 * 5, 2 * 7));
}

TEST(Gradient, OfAStepIsZero) {
  TestModel model = product().node("Floor", {"h"}, {"floor"}).node("Add", {"floor", "y"}, {"sum"});
  EXPECT_THAT(gradient(model, {"x"}, {{"xs", Names{"x"}}, {"y", std::string("sum")}}),
              ElementsAre(2 * 1 * 5, 2 * -3 * 7));
}

TEST(Gradient, RefusesWhatHasNone) {
  TestModel model = TestModel()
                        .input("x", {1, 1, 4})
                        .node("MaxPool", {"x"}, {"pooled"}, {{"kernel_shape", Ints{2}}}, "pool")
                        .node("Mul", {"pooled", "pooled"}, {"y"});
  take_gradient(model, {"x"}, {"first"}, {{"xs", Names{"x"}}, {"y", std::string("y")}});
  EXPECT_THAT(gradient_error(model, {"x"}, {{"xs", Names{"x"}}, {"y", std::string("first")}}),
              HasSubstr("max_pool_grad 'pool (backward)' has no gradient and lies between one of 'xs' and 'y'"));
}

TEST(Gradient, Mistakes) {
  EXPECT_THAT(gradient_error(product(), {"x"}, {{"xs", Names{"x"}}, {"y", std::string("nothing")}}),
              HasSubstr("'nothing' is no tensor that is known before this node"));
  EXPECT_THAT(gradient_error(product(), {"x", "z"}, {{"xs", Names{"x"}}, {"y", std::string("y")}}),
              HasSubstr("found 2 operands and 1 names"));
  EXPECT_THAT(gradient_error(product(), {"x", "x"}, {{"xs", Names{"x", "x"}}, {"y", std::string("y")}}),
              HasSubstr("'x' names the same tensor as another one"));
}

}  // namespace
}  // namespace halfstep::test
