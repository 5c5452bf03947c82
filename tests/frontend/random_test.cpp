// Random operators and what training makes of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ir/op.h"
#include "passes/model/inference.h"
#include "test_model.h"

namespace halfstep::test {
namespace {

int count(const Graph& graph, std::string_view op) {
  return static_cast<int>(std::ranges::count_if(graph.nodes(), [&](const Node& node) { return node.op->name == op; }));
}

const Node& only(const Graph& graph, std::string_view op) {
  return *std::ranges::find_if(graph.nodes(), [&](const Node& node) { return node.op->name == op; });
}

// x [4, 3] times a weight, in two spellings of stochastic depth over rows.
TestModel stochastic_depth(const std::string& spelling) {
  TestModel model;
  model.input("x", {4, 3}).weight("w", ramp({3}, 1, 0)).weight("like", ramp({4, 1})).weight("p", floats({}, {0.75}));
  model.node("Mul", {"x", "w"}, {"h"}).node("RandomUniformLike", {"like"}, {"u"});
  if (spelling == "less") {
    model.node("Less", {"u", "p"}, {"kept"}).node("Cast", {"kept"}, {"mask"}, {{"to", int64_t{1}}});
    model.node("Div", {"mask", "p"}, {"scaled"}).node("Mul", {"h", "scaled"}, {"y"}, {}, "depth");
  } else {
    model.node("Add", {"p", "u"}, {"sum"}).node("Floor", {"sum"}, {"mask"}).node("Div", {"h", "p"}, {"whole"});
    model.node("Mul", {"whole", "mask"}, {"y"}, {}, "depth");
  }
  return model.output("y");
}

TEST(Random, StochasticDepthIsADropoutOfRows) {
  for (const char* spelling : {"less", "floor"}) {
    SCOPED_TRACE(spelling);
    const ImportedModel model = import_model(stochastic_depth(spelling).file());
    ASSERT_EQ(count(model.graph, "dropout"), 1);
    const Node& dropout = only(model.graph, "dropout");
    EXPECT_EQ(dropout.attributes.number("ratio"), 0.25);
    EXPECT_EQ(dropout.attributes.ints("shape"), (Ints{4, 1}));
    EXPECT_EQ(*dropout.origin.name, "depth");
    const Graph evaluated = inference(model.graph);
    EXPECT_EQ(count(evaluated, "dropout") + count(evaluated, "uniform"), 0);
  }
}

TEST(Random, StochasticDepthFollowsTheBatch) {
  const ImportedModel model = import_model(stochastic_depth("less").file(), {.batch = 6});
  EXPECT_EQ(only(model.graph, "dropout").attributes.ints("shape"), (Ints{6, 1}));
}

TEST(Random, StochasticDepthAsExportedStaysWhatTheFileSays) {
  const ImportedModel model = import_model(stochastic_depth("less").file(), {.mode = ImportMode::as_exported});
  EXPECT_EQ(count(model.graph, "dropout"), 0);
  EXPECT_EQ(count(model.graph, "uniform"), 1);
}

TEST(Random, NoDropoutMeansNoStochasticDepth) {
  const ImportedModel model = import_model(stochastic_depth("less").file(), {.dropout = 0.0});
  EXPECT_EQ(count(model.graph, "dropout") + count(model.graph, "uniform"), 0);
  EXPECT_FALSE(model.graph.leaf(kStepSeed)) << "nothing is drawn";
}

TEST(Random, NormalNumbersAreNormalBoundedAndRepeatable) {
  TestModel model;
  model.node("RandomNormal", {}, {"y"}, {{"shape", Ints{20000}}, {"seed", 3.0}}).output("y");
  const std::vector<double> first = evaluate(model, {}).at("y");
  double sum = 0, squares = 0;
  for (double v : first) {
    ASSERT_LT(std::abs(v), 6) << "far inside the range of fp16";
    sum += v, squares += v * v;
  }
  EXPECT_NEAR(sum / 20000, 0, 0.03);
  EXPECT_NEAR(squares / 20000, 1, 0.05);
  EXPECT_EQ(evaluate(model, {}).at("y"), first);
  EXPECT_EQ(import_model(model.file(), {.mode = ImportMode::as_exported}).remarks.size(), 1u) << "of the seed";
}

TEST(Random, DrawsOfTwoNodesDiffer) {
  TestModel model;
  model.node("RandomUniform", {}, {"a"}, {{"shape", Ints{4}}}).node("RandomUniform", {}, {"b"}, {{"shape", Ints{4}}});
  const auto found = evaluate(model.output("a").output("b"), {});
  EXPECT_NE(found.at("a"), found.at("b"));
}

TEST(Random, MultinomialDrawsByProbability) {
  TestModel model;
  model.weight("log_p", floats({1, 3}, {std::log(0.5), std::log(0.3), std::log(0.2)}));
  model.node("Multinomial", {"log_p"}, {"y"}, {{"sample_size", int64_t{5000}}}).output("y");
  std::vector<double> shares(3, 0);
  const auto drawn = evaluate(model, {});
  for (double v : drawn.at("y")) shares.at(static_cast<size_t>(v)) += 1.0 / 5000;
  EXPECT_NEAR(shares[0], 0.5, 0.03);
  EXPECT_NEAR(shares[1], 0.3, 0.03);
}

}  // namespace
}  // namespace halfstep::test
