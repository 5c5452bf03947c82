// train --trace: every stage, layer by layer.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <sstream>

#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class TrainTrace : public Cli {
 protected:
  void SetUp() override { write("m.onnx", tiny_mlp()); }
  Arguments train(const Arguments& more) const {
    return Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "3", "--learning_rate", "0.1", "--trace"} +
           data({4}) + more;
  }
  static size_t columns(const std::string& line) {
    return static_cast<size_t>(std::ranges::count_if(line, [](char c) { return (c & 0xc0) != 0x80; }));
  }
};

TEST_F(TrainTrace, ShowsTheFiveStagesTheCurveAndAPrediction) {
  const std::string out = succeed(train({}));
  size_t at = 0;
  for (const char* part :
       {"trace 1 of 5, import", "fc1   Gemm", "trace 2 of 5, autocast: ", "contraction",
        "trace 3 of 5, casts, loss scale and backward: the first step's scale is 65536",
        "trace 4 of 5, compile: ", "trace 5 of 5, run: the first 8 samples", "|gradient|", "the loss of each step", "┤",
        "step 1", "step 24", "test sample 0, layer by layer", "precision", "predicted class"}) {
    const size_t found = out.find(part, at);
    ASSERT_NE(found, std::string::npos) << part << " behind " << out.substr(at);
    at = found;
  }
}

TEST_F(TrainTrace, FitsTheWidth) {
  ::setenv("COLUMNS", "80", 1);
  const std::string out = succeed(train({}));
  ::unsetenv("COLUMNS");
  std::istringstream lines(out.substr(out.find("trace 1 of 5")));
  bool table = false;
  int rows = 0;
  for (std::string line; std::getline(lines, line) && !line.starts_with("  step 24 reached");) {
    if (line.find("  ----") == 0 || line.find("┤") != std::string::npos) table = true;
    if (line.empty()) table = false;
    if (!table) continue;
    EXPECT_LE(columns(line), 80u) << line;
    ++rows;
  }
  EXPECT_GT(rows, 30);
}

TEST_F(TrainTrace, IsDataForMachines) {
  const json result = json::parse(succeed(train({"--json"})));
  const json& trace = result.at("trace");
  EXPECT_EQ(trace.at("loss_scale"), 65536);
  EXPECT_EQ(trace.at("samples"), 8);
  EXPECT_EQ(trace.at("losses").size(), 24u);
  EXPECT_GT(trace.at("losses")[0], trace.at("losses")[23]);
  EXPECT_FALSE(trace.at("calls").empty());
  const auto row_of = [](const json& rows, const std::string& node) {
    for (const json& row : rows)
      if (row.at("node") == node) return row;
    return json();
  };
  const json fc1 = row_of(trace.at("run"), "fc1");
  EXPECT_EQ(fc1.at("operator"), "Gemm");
  EXPECT_EQ(fc1.at("type"), "f16");
  EXPECT_EQ(fc1.at("shape"), (Shape{8, 8}));
  EXPECT_LT(fc1.at("least"), fc1.at("mean"));
  EXPECT_LT(fc1.at("mean"), fc1.at("largest"));
  EXPECT_GT(fc1.at("gradient"), 1) << "multiplied by the loss scale";
  EXPECT_EQ(row_of(trace.at("run"), "relu").at("least"), 0);
  const json& prediction = trace.at("prediction");
  EXPECT_EQ(row_of(prediction.at("layers"), "fc2").at("shape"), (Shape{1, 3}));
  EXPECT_EQ(prediction.at("label"), 0);
  EXPECT_FALSE(trace.at("inspection").at("nodes").empty());
}

TEST_F(TrainTrace, IsOfTheStateThatTrainingBeginsFrom) {
  write("scaler.json", R"({"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000,
                          "_growth_tracker": 0})");
  succeed({"compile", "m.onnx", "--batch", "8", "-o", "step"});
  const json given = json::parse(succeed(Arguments{"train", "step", "--trace", "--json", "--epochs", "1", "--out",
                                                   "given", "--grad_scaler", "scaler.json"} +
                                         data({4})));
  EXPECT_EQ(given.at("trace").at("loss_scale"), 1024);

  const json first = json::parse(succeed(train({"--json"})));
  const json resumed =
      json::parse(succeed(train({"--json", "--out", "more", "--epochs", "4", "--resume", "halfstep-out/checkpoints"})));
  EXPECT_NE(first.at("trace").at("run")[0].at("mean"), resumed.at("trace").at("run")[0].at("mean"));
}

// An infinity that a node makes and the NaN that it becomes behind it.
TEST_F(TrainTrace, ShowsWhereNaNComesFrom) {
  TestModel bad(17);
  bad.input("x", {2, 4}).weight("w", ramp({4, 3}, -1, 0.2)).weight("zero", floats({1}, {0}));
  bad.node("MatMul", {"x", "w"}, {"y"}, {}, "product").node("Exp", {"big"}, {"e"}, {}, "exp");
  bad.weight("k", floats({1}, {1e4})).node("Mul", {"y", "k"}, {"big"}, {}, "times");
  bad.node("Mul", {"e", "zero"}, {"n"}, {}, "nothing").node("Add", {"n", "y"}, {"z"}, {}, "sum").output("z");
  write("bad.onnx", bad);
  const Arguments arguments =
      Arguments{"train", "bad.onnx", "--batch", "8", "--max_steps", "1", "--trace", "--freeze", "zero,k"} + data({4});
  const Finished done = run(arguments + Arguments{"--loss_scale", "none"});
  const size_t run_stage = done.out.find("trace 5 of 5");
  ASSERT_NE(run_stage, std::string::npos) << done.err;
  const auto row = [&](const std::string& node) {
    const size_t at = done.out.find("\n  " + node + " ", run_stage);
    return at == std::string::npos ? std::string() : done.out.substr(at + 1, done.out.find('\n', at + 1) - at - 1);
  };
  EXPECT_THAT(done.out.substr(run_stage), HasSubstr("NaN, inf"));
  EXPECT_THAT(row("exp"), HasSubstr("inf      inf"));  // largest and mean
  EXPECT_THAT(row("nothing"), HasSubstr("nan"));
  EXPECT_THAT(row("sum"), HasSubstr("nan"));
  EXPECT_THAT(row("times"), testing::Not(HasSubstr("inf")));
}

// The graph has images channels-last; the file has not.
TEST_F(TrainTrace, ShowsShapesAsTheFileHasThem) {
  TestModel m(17);
  m.input("x", {2, 1, 6, 8}).weight("w", ramp({5, 1, 3, 3}, -1, 0.05)).weight("fc.weight", ramp({3, 120}, -0.5, 0.002));
  m.node("Conv", {"x", "w"}, {"c"}, {{"kernel_shape", Ints{3, 3}}}, "conv").node("Relu", {"c"}, {"r"}, {}, "relu");
  m.node("Flatten", {"r"}, {"f"}, {}, "flatten");
  m.node("Gemm", {"f", "fc.weight"}, {"logits"}, {{"transB", int64_t{1}}}, "fc").output("logits");
  write("c.onnx", m);
  const std::string out =
      succeed(Arguments{"train", "c.onnx", "--batch", "8", "--max_steps", "1", "--trace"} + data({1, 6, 8}));
  const size_t imported = out.find("trace 1 of 5"), ran = out.find("trace 5 of 5"),
               predicted = out.find("layer by layer", ran);
  ASSERT_NE(predicted, std::string::npos) << out;
  EXPECT_THAT(out.substr(imported, 2000),
              testing::AllOf(HasSubstr("x [8,1,6,8], w [5,1,3,3]"), HasSubstr("[8,5,4,6]")));
  EXPECT_THAT(out.substr(ran, predicted - ran),
              testing::AllOf(HasSubstr("[8,5,4,6]"), testing::Not(HasSubstr("[8,4,6,5]"))));
  EXPECT_THAT(out.substr(predicted), HasSubstr("[1,5,4,6]"));
}

TEST_F(TrainTrace, NeedsTheModelsFile) {
  succeed({"compile", "m.onnx", "--batch", "8", "-o", "step"});
  std::filesystem::remove(path("m.onnx"));
  fail(1, Arguments{"train", "step", "--trace"} + data({4}), {"is not there, so that there is nothing to trace"});
}

}  // namespace
}  // namespace halfstep::test
