// What the commands print: data on stdout, messages on stderr, JSON that parses.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "compiler/recipe.h"
#include "tests/cli/cli_fixture.h"
#include "training/recipe_keys.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> result;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) result.push_back(line);
  return result;
}

class CliOutput : public Cli {};

TEST_F(CliOutput, HelpOfEveryCommandBeginsWithTwoExamples) {
  for (const std::string command :
       {"", "info", "check", "inspect", "compile", "train", "eval", "gradients", "export", "bench"}) {
    const std::string help = succeed(command.empty() ? Arguments{"--help"} : Arguments{command, "--help"});
    const std::vector<std::string> all = lines(help);
    const auto examples = std::ranges::find(all, "examples:");
    ASSERT_LT(examples - all.begin(), 4) << help;
    for (int i = 1; i <= 2; ++i) EXPECT_THAT(examples[i], testing::StartsWith("  halfstep " + command));
    EXPECT_EQ(examples[3], "");
    EXPECT_THAT(help, HasSubstr("exit codes:"));
    EXPECT_THAT(help, Not(HasSubstr("\n\n\n")));
  }
}

TEST_F(CliOutput, WrongCommandLinesNameWhatIsNear) {
  fail(2, {}, {"a command is missing: info, check"});
  fail(2, {"trian"}, {"no command 'trian'; did you mean 'train'?"});
  fail(2, {"train", "m.onnx", "--epoch", "3"},
       {"no option '--epoch'; did you mean '--epochs'?", "see halfstep train --help"});
  fail(2, {"info", "--batch", "3"}, {"no option '--batch'"});
  fail(2, {"train"}, {"model is required", "a recipe (.toml)"});
  fail(2, {"inspect", "a.onnx", "b.onnx"}, {"'b.onnx' is one argument too many"});
  fail(2, {"train", "m.onnx", "--batch"}, {"--batch"});
}

TEST_F(CliOutput, InfoNamesEveryLibrary) {
  EXPECT_THAT(succeed({"info"}), AllOf(HasSubstr("oneDNN"), HasSubstr("LLVM 19"), HasSubstr("Protocol Buffers"),
                                       HasSubstr("opset 7 to 28"), HasSubstr("threads"), HasSubstr("cuda")));
  const json info = json::parse(succeed({"info", "--json"}));
  EXPECT_TRUE(info["cuda"]["available"].is_boolean());
}

TEST_F(CliOutput, InspectHasOneRowForEachOnnxNode) {
  write("m.onnx", tiny_convnet());
  const json inspected = json::parse(succeed({"inspect", "m.onnx", "--json"}));
  std::vector<std::pair<std::string, std::string>> found;
  for (const json& row : inspected["nodes"]) found.emplace_back(row["node"], row["operator"]);
  EXPECT_THAT(found, testing::ElementsAre(testing::Pair("conv", "Conv"), testing::Pair("bn", "BatchNormalization"),
                                          testing::Pair("relu", "Relu"), testing::Pair("pool", "MaxPool"),
                                          testing::Pair("flatten", "Flatten"), testing::Pair("fc", "Gemm"),
                                          testing::Pair("loss", "softmax_cross_entropy")));
  const json& conv = inspected["nodes"][0];
  EXPECT_EQ(conv["operand"], "f16");
  EXPECT_EQ(conv["accumulator"], "f32");
  EXPECT_EQ(conv["result"], "f16");
  EXPECT_EQ(conv["reason"], "contraction");
  EXPECT_GT(inspected["ir_nodes"].size(), inspected["nodes"].size());
  const std::string text = succeed({"inspect", "m.onnx"}), all = succeed({"inspect", "m.onnx", "--all"});
  EXPECT_LT(lines(text).size(), lines(all).size());
  EXPECT_THAT(text, ContainsRegex("[0-9]+ nodes write f16, [0-9]+ write f32"));
  EXPECT_THAT(succeed({"inspect", "m.onnx", "--deny", "conv"}), ContainsRegex("conv +Conv +f32 +f32 +f32 +deny list"));
  EXPECT_THAT(succeed({"inspect", "m.onnx", "--precision", "fp32"}), Not(HasSubstr("f16")));
}

// Merged with an equal one, passed on, taken in, folded, computed of weights alone.
TEST_F(CliOutput, InspectHasARowForNodesThatAreNoneOfTheGraph) {
  TestModel m(17);
  m.input("x", {2, 4}).weight("w", ramp({3, 8}, -1, 0.1)).weight("of_w", ints({1}, {4})).weight("end", ints({1}, {8}));
  m.weight("axis", ints({1}, {1}));
  m.node("Transpose", {"x"}, {"t"}, {{"perm", Ints{1, 0}}}, "there").node("Transpose", {"t"}, {"u"}, {}, "back");
  m.node("Shape", {"u"}, {"shape"}, {}, "sizes").node("Reshape", {"u", "shape"}, {"r"}, {}, "reshape");
  m.node("Slice", {"w", "of_w", "end", "axis"}, {"part"}, {}, "part_of_w");
  m.node("Gemm", {"r", "part"}, {"a"}, {{"transB", int64_t{1}}}, "fc");
  m.node("Gemm", {"r", "part"}, {"b"}, {{"transB", int64_t{1}}}, "same").node("Identity", {"b"}, {"c"}, {}, "alias");
  m.node("Add", {"a", "c"}, {"logits"}, {}, "sum").output("logits");
  write("m.onnx", m);
  const auto rows = [&](const Arguments& options) {
    std::map<std::string, std::string> reasons;
    const json inspected = json::parse(succeed(Arguments{"inspect", "m.onnx", "--json"} + options));
    for (const json& row : inspected["nodes"])
      reasons[row["node"]] = std::string(row["result"]) + ": " + std::string(row["reason"]);
    return reasons;
  };
  using testing::Pair;
  EXPECT_THAT(rows({}),
              testing::ElementsAre(Pair("alias", "f16: merged with 'fc'"), Pair("back", "f16: part of 'fc'"),
                                   Pair("fc", "f16: contraction"), Pair("loss", "f32: needs f32"),
                                   Pair("part_of_w", "f32: follows its operands"), Pair("reshape", "f16: part of 'fc'"),
                                   Pair("same", "f16: merged with 'fc'"), Pair("sizes", "i64: folded: constant"),
                                   Pair("sum", "f16: follows 'fc'"), Pair("there", "f16: part of 'fc'")));
  EXPECT_THAT(rows({"--deny", "same"}).at("fc"), testing::StartsWith("f32: deny list: pattern 'same'"));
}

TEST_F(CliOutput, AListMayBeGivenPieceByPiece) {
  write("m.onnx", tiny_mlp());
  EXPECT_THAT(succeed({"inspect", "m.onnx", "--deny", "fc1", "--deny", "fc2"}),
              AllOf(ContainsRegex("fc1 +Gemm +f32 +f32 +f32 +deny list"), HasSubstr("deny list: pattern 'fc2'")));
  EXPECT_EQ(
      json::parse(succeed({"bench", "m.onnx", "--batch", "8", "--batch", "16", "--repeats", "2", "--json"}))["batch"],
      16);
}

TEST_F(CliOutput, InspectNeedsNoWeights) {
  TestModel m = tiny_mlp();
  onnx::TensorProto& w = *m.proto.mutable_graph()->mutable_initializer(0);
  w.clear_raw_data();
  w.set_data_location(onnx::TensorProto::EXTERNAL);
  auto& entry = *w.add_external_data();
  entry.set_key("location"), entry.set_value("gone.data");
  write("m.onnx", m);
  succeed({"inspect", "m.onnx"});
  EXPECT_GT(json::parse(succeed({"bench", "m.onnx", "--repeats", "2", "--json"}))["median_ms"], 0);
}

TEST_F(CliOutput, CheckCountsOperatorsAndParameters) {
  write("m.onnx", tiny_mlp());
  const json checked = json::parse(succeed({"check", "m.onnx", "--json"}));
  EXPECT_EQ(checked["ready"], true);
  EXPECT_EQ(checked["weights"]["trainable"]["values"], 8 * 4 + 8 + 3 * 8 + 3);
  EXPECT_EQ(checked["operators"]["Gemm"], 2);
  EXPECT_THAT(succeed({"check", "m.onnx"}),
              AllOf(HasSubstr("67 values in 4 trainable tensors"), HasSubstr("ready to train\n")));
}

TEST_F(CliOutput, AShapeWithoutANameIsTheOnlyInputs) {
  write("m.onnx", tiny_mlp());
  EXPECT_EQ(json::parse(succeed({"bench", "m.onnx", "--shape", "16,4", "--repeats", "2", "--json"}))["batch"], 16);
  EXPECT_EQ(json::parse(succeed({"bench", "m.onnx", "--shape", "x=-1,4", "--repeats", "2", "--json"}))["batch"], 32);
  EXPECT_THAT(succeed({"compile", "m.onnx", "--shape", "16,4", "--stop-after", "autocast"}), HasSubstr("f32[16,4]"));
}

TEST_F(CliOutput, CompileStopsDumpsAndTimes) {
  write("m.onnx", tiny_mlp());
  EXPECT_THAT(succeed({"compile", "m.onnx", "--stop-after", "attach_loss"}),
              AllOf(HasSubstr("softmax_cross_entropy"), Not(HasSubstr("f16"))));
  const Finished timed = run({"compile", "m.onnx", "--dump", "dump", "--time-passes"});
  EXPECT_EQ(timed.exit_code, 0);
  EXPECT_THAT(timed.err, AllOf(HasSubstr("differentiate"), ContainsRegex("total +[0-9.]+ +100.0%")));
  for (const char* file : {"dump/00_import.forward.ir", "dump/kernels.ll", "dump/program.train.txt"})
    EXPECT_GT(read(file).size(), 0u) << file;
  const json compiled = json::parse(succeed({"compile", "m.onnx", "-o", "step", "--json"}));
  EXPECT_EQ(compiled["parameters"], 67);
  EXPECT_GT(compiled["passes"].size(), 10u);
}

TEST_F(CliOutput, BenchMeasures) {
  write("m.onnx", tiny_mlp());
  const json bench = json::parse(succeed({"bench", "m.onnx", "--batch", "4", "--repeats", "5", "--calls", "--json"}));
  EXPECT_EQ(bench["batch"], 4);
  EXPECT_EQ(bench["repeats"], 5);
  EXPECT_GE(bench["p90_ms"], bench["median_ms"]);
  EXPECT_NEAR(bench["samples_per_second"].get<double>() * bench["median_ms"].get<double>(), 4000, 1e-6);
  for (const char* key : {"planned_bytes", "measured_bytes", "compile_seconds"}) EXPECT_GT(bench[key], 0) << key;
  EXPECT_EQ(bench["profile"].size(), bench["calls"].get<size_t>());
  EXPECT_THAT(succeed({"bench", "m.onnx", "--repeats", "3"}),
              AllOf(HasSubstr(" ms  median of 3 steps"), HasSubstr("samples/s"), HasSubstr("planned"),
                    HasSubstr("measured"), ContainsRegex("compile +[0-9.]+ s")));
}

TEST_F(CliOutput, BenchExplainsWhatCallsTakeBesideWhatTheyShould) {
  write("m.onnx", tiny_mlp());
  const json bench = json::parse(succeed({"bench", "m.onnx", "--batch", "4", "--repeats", "5", "--explain", "--json"}));
  const json& explained = bench["explained"];
  int64_t calls = 0;
  double measured = 0, predicted = 0;
  for (const json& row : explained["calls"]) {
    calls += row["calls"].get<int64_t>();
    measured += row["microseconds"].get<double>(), predicted += row["predicted"].get<double>();
    EXPECT_THAT(row["bound"].get<std::string>(), testing::AnyOf("launch", "bytes", "flops"));
    EXPECT_GE(row["predicted"].get<double>(),
              row["calls"].get<double>() * 1e6 * explained["machine"]["launch_seconds"].get<double>());
  }
  EXPECT_EQ(calls, bench["calls"]);
  EXPECT_NEAR(explained["microseconds"].get<double>(), measured, 1e-6 * measured);
  EXPECT_NEAR(explained["predicted"].get<double>(), predicted, 1e-6 * predicted);
  EXPECT_THAT(succeed({"bench", "m.onnx", "--repeats", "3", "--explain"}),
              AllOf(HasSubstr("us lost"), HasSubstr("bound by"), ContainsRegex("predicted +[0-9.]+ ms of")));
}

TEST_F(CliOutput, TrainingShowsItsStagesOnStdoutAndEndsWithTheAccuracy) {
  write("m.onnx", tiny_mlp());
  const Finished trained =
      run(Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "2", "--out", "run"} + data({4}));
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(trained.out, AllOf(HasSubstr("[1/5] data"), HasSubstr("[2/5] preprocessing"), HasSubstr("[3/5] tensors"),
                                 HasSubstr("[4/5] training with AMP"), HasSubstr("[5/5] metrics"),
                                 HasSubstr("waits inside a step")));
  EXPECT_THAT(lines(trained.out).back(), ContainsRegex("^test accuracy [01]\\.[0-9]{4}$"));
  EXPECT_THAT(trained.out, Not(HasSubstr("\r")));
  EXPECT_THAT(trained.err, Not(HasSubstr("\r")));  // no progress line in a log
  // The metrics' last line holds the counters.
  const json end = json::parse(lines(read("run/metrics.jsonl")).back());
  EXPECT_EQ(end["kind"], "end");
  EXPECT_EQ(end["counters"]["steps"], 32);  // 8 of training and 8 of evaluation an epoch
  EXPECT_EQ(end["counters"]["stream_synchronisations"], 0);
  EXPECT_GT(end["memory"]["scratch_bytes"], 0);
}

TEST_F(CliOutput, JsonIsAllThatStdoutHolds) {
  write("m.onnx", tiny_mlp());
  const json trained = json::parse(
      succeed(Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "2", "--out", "run", "--json"} + data({4})));
  EXPECT_EQ(trained["epochs"].size(), 2u);
  EXPECT_EQ(trained["steps"], 16);
  EXPECT_EQ(trained["counters"]["batches"], 32);
  EXPECT_EQ(trained["precision"].size(), 5u);
  const json exported =
      json::parse(succeed({"export", "m.onnx", "--checkpoint", "run/checkpoints", "-o", "t.onnx", "--json"}));
  EXPECT_EQ(exported["trained_model"], "t.onnx");
}

TEST(Recipes, SurviveTheirText) {
  Recipe recipe;
  recipe.model = "/a/m.onnx", recipe.data = "x=/a/x.npy,labels=/a/y.npy";
  for (const auto& [key, value] : std::map<std::string, std::string>{{"shape", "x=4,3;y=4"},
                                                                     {"mean", "0.1,0.2"},
                                                                     {"deny", "conv*,say \"no\""},
                                                                     {"learning_rate", "0.1"},
                                                                     {"nesterov", "true"},
                                                                     {"ignore_index", "-100"}})
    set_key(recipe, key, value);
  Recipe again;
  read_recipe_text(again, to_toml(recipe), "test", "/elsewhere");
  for (const RecipeKey& key : recipe_keys()) EXPECT_EQ(key.get(again), key.get(recipe)) << key.name;
}

TEST(Recipes, KeysMayBeWrittenWithLists) {
  Recipe recipe;
  read_recipe_text(recipe, "mean = [0.1, 0.2]\nfreeze = [\"a\", \"b\"]\nmodel = \"m.onnx\"\ndata = \"/d\"", "test",
                   "/base");
  EXPECT_EQ(recipe.mean, (std::vector<double>{0.1, 0.2}));
  EXPECT_EQ(recipe.freeze, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(recipe.model, "/base/m.onnx");
  EXPECT_EQ(recipe.data, "/d");
}

}  // namespace
}  // namespace halfstep::test
