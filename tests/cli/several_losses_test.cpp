// A model with two outputs and a loss for each.
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "tests/cli/cli_fixture.h"
#include "tests/data/data_files.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr const char* kLosses = R"(
[[loss]]
output = "class"
weight = 0.5

[[loss]]
name = "boxes"
kind = "mean_squared_error"
output = "box"
labels = "corners"
weight = 2
)";

class SeveralLosses : public Cli {
 protected:
  void SetUp() override {
    TestModel m(17);
    m.input("x", {2, 4}).weight("trunk", ramp({8, 4}, -0.5, 0.03)).weight("c", ramp({3, 8}, -0.3, 0.02));
    m.weight("b", ramp({2, 8}, 0.2, -0.03));
    m.node("Gemm", {"x", "trunk"}, {"h"}, {{"transB", int64_t{1}}}, "trunk").node("Relu", {"h"}, {"r"}, {}, "relu");
    m.node("Gemm", {"r", "c"}, {"class"}, {{"transB", int64_t{1}}}, "to_class");
    m.node("Gemm", {"r", "b"}, {"box"}, {{"transB", int64_t{1}}}, "to_box");
    m.output("class").output("box");
    write("m.onnx", m);
    data({4}, 70);
    std::string corners;
    for (int i = 0; i < 140; ++i) append(corners, static_cast<float>(std::sin(0.7 * i)));
    write("corners.npy", npy("<f4", "(70, 2)", corners));
    recipe("r.toml", "", kLosses);
  }
  std::string recipe(const std::string& name, const std::string& keys, const std::string& losses) const {
    return write(name,
                 "model = \"m.onnx\"\nbatch = 8\nepochs = 2\nlearning_rate = 0.1\nseed = 3\n"
                 "data = \"x=x.npy,labels=y.npy,corners=corners.npy\"\n"
                 "test_data = \"x=x.npy,labels=y.npy,corners=corners.npy\"\n" +
                     keys + losses);
  }
  static void expect_sum(const json& row, const std::string& prefix) {
    const json& losses = row.at(prefix + "losses");
    EXPECT_NEAR(row.at(prefix + "loss").get<double>(),
                0.5 * losses.at("class").at("loss").get<double>() + 2 * losses.at("boxes").at("loss").get<double>(),
                1e-5);
    EXPECT_EQ(losses.at("class").at("accuracy"), row.at(prefix + "accuracy"));
    EXPECT_FALSE(losses.at("boxes").contains("accuracy"));
  }
};

// The step has no weights of a head without a loss.
TEST_F(SeveralLosses, AHeadWithoutALossIsNoMatterForATraceOrForWhatIsNotFinite) {
  const std::string one = recipe("one.toml", "output = \"class\"\n", "");
  const std::string trace = succeed({"train", "one.toml", "--out", "traced", "--trace", "--max-steps", "1"});
  EXPECT_THAT(trace, HasSubstr("to_class"));
  const Finished ended = run({"train", "one.toml", "--out", "ended", "--precision", "fp32", "--learning-rate", "1e30"});
  EXPECT_EQ(ended.exit_code, 1);
  EXPECT_THAT(ended.err, HasSubstr("the first value that is not finite"));
}

TEST_F(SeveralLosses, AreToldEachInEveryRow) {
  const std::string out = succeed({"train", "r.toml", "--out", "run"});
  EXPECT_THAT(out, HasSubstr("\n         class "));
  EXPECT_THAT(out, HasSubstr(" %), boxes "));
  EXPECT_THAT(out, HasSubstr("; test class "));
  std::istringstream lines(read("run/metrics.jsonl"));
  int steps = 0, epochs = 0;
  for (std::string line; std::getline(lines, line);) {
    const json row = json::parse(line);
    if (row["kind"] == "step") expect_sum(row, ""), ++steps;
    if (row["kind"] == "epoch") expect_sum(row, ""), expect_sum(row, "test_"), ++epochs;
  }
  EXPECT_EQ(steps, 16);
  EXPECT_EQ(epochs, 2);
  const json trained = json::parse(succeed({"train", "r.toml", "--out", "again", "--json"}));
  for (const json& epoch : trained["epochs"]) expect_sum(epoch, ""), expect_sum(epoch, "test_");
  EXPECT_LT(trained["epochs"][1]["loss"], trained["epochs"][0]["loss"]);
  const json evaluated = json::parse(succeed({"eval", "r.toml", "--checkpoint", "run/checkpoints", "--json"}));
  expect_sum(evaluated, "");
  EXPECT_EQ(evaluated["loss"], trained["epochs"][1]["test_loss"]);
  EXPECT_THAT(succeed({"eval", "r.toml"}), HasSubstr("; class "));
}

// The command line says the same; what a run leaves as its recipe too.
TEST_F(SeveralLosses, MayBeAnOption) {
  succeed({"train", "r.toml", "--out", "a"});
  const std::string keys = read("r.toml").substr(0, read("r.toml").find("\n[[loss]]"));
  write("plain.toml", keys);
  succeed({"train", "plain.toml", "--out", "b", "--losses",
           "output=class,weight=0.5;name=boxes,kind=mean_squared_error,output=box,labels=corners,weight=2"});
  succeed({"train", "a/recipe.toml", "--out", "c"});
  for (const char* other : {"b", "c"})
    EXPECT_EQ(read("a/checkpoints/step-000000016/weights.safetensors"),
              read(std::string(other) + "/checkpoints/step-000000016/weights.safetensors"))
        << other;
}

TEST_F(SeveralLosses, GoOnInTheMidstOfAnEpoch) {
  succeed({"train", "r.toml", "--out", "whole"});
  succeed({"train", "r.toml", "--out", "parts", "--max_steps", "5"});
  succeed({"train", "r.toml", "--out", "parts", "--resume", "parts/checkpoints"});
  for (const char* file : {"weights.safetensors", "slots.safetensors", "manifest.json"})
    EXPECT_EQ(read(std::string("whole/checkpoints/step-000000016/") + file),
              read(std::string("parts/checkpoints/step-000000016/") + file))
        << file;
}

TEST_F(SeveralLosses, RunWithoutACompilerAndPredictWithoutLabels) {
  succeed({"compile", "r.toml", "-o", "step", "--keep_outputs", "true"});
  RunOptions runner;
  runner.executable = "halfstep-run";
  const Finished trained = run({"train", "step", "--out", "run"}, runner);
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(trained.out, HasSubstr("; test class "));
  const Finished predicted = run({"predict", "step", "--data", "x=x.npy", "-o", "p.npz"}, runner);
  EXPECT_EQ(predicted.exit_code, 0) << predicted.err;
  EXPECT_THAT(predicted.err, HasSubstr("class f32[70,3]"));
}

// Each with labels of its own, which are checked.
TEST_F(SeveralLosses, LabelsOutOfRangeAreNamed) {
  write("bad.npy", npy("<i8", "(70,)", [] {
          std::string values;
          for (int64_t i = 0; i < 70; ++i) append(values, i == 9 ? int64_t{3} : int64_t{0});
          return values;
        }()));
  recipe("two.toml", "", "[[loss]]\noutput = \"class\"\n[[loss]]\noutput = \"box\"\nlabels = \"kind\"\n");
  fail(1, {"train", "two.toml", "--data", "x=x.npy,labels=y.npy,kind=bad.npy"},
       {"data array 'kind': sample 9 has label 3, expected 0 to 1"});
}

TEST_F(SeveralLosses, WhatCannotBeIsRefused) {
  recipe("bad.toml", "", "[[loss]]\noutpt = \"class\"\n[[loss]]\nweight = \"much\"\nkind = \"hinge\"\n");
  fail(1, {"train", "bad.toml"},
       {"recipe 'bad.toml', line ", "losses: loss 1: no key 'outpt'; did you mean 'output'?",
        "loss 2: weight: a number expected, found 'much'", "loss 2: kind: one of softmax_cross_entropy, "});
  recipe("empty.toml", "", "[[loss]]\n[[loss]]\noutput = \"class\"\n");
  fail(1, {"train", "empty.toml"}, {"recipe 'empty.toml', line ", "loss 1: it is empty"});
  fail(1, {"train", "r.toml", "--losses", "output=class,weight=1e39"},
       {"loss 1: weight: 0, or a number that an f32 holds expected, found 1e39"});
  const Finished idle = run({"check", "r.toml", "--losses",
                             "output=class;name=b,kind=mean_squared_error,output=box,labels=corners,ignore_index=3"});
  EXPECT_THAT(idle.err + idle.out, HasSubstr("ignore_index of loss 2 has no effect: its kind is mean_squared_error"));
  recipe("same.toml", "", "[[loss]]\noutput = \"class\"\n[[loss]]\noutput = \"class\"\n");
  fail(1, {"train", "same.toml"}, {"two losses have the name 'class': give each its own with 'name'"});
  recipe("none.toml", "", "[[loss]]\noutput = \"klass\"\n");
  fail(1, {"train", "none.toml"}, {"no output 'klass', did you mean 'class'?"});
  fail(1, {"export", "r.toml", "--training-operators", "-o", "t.onnx"}, {"losses: training operators do not say it"});
  EXPECT_THAT(
      run({"check", "r.toml", "--loss", "from_graph"}).err + run({"check", "r.toml", "--loss", "from_graph"}).out,
      HasSubstr("loss has no effect: each of the losses has its own"));
}

// A scale for each, in every row, in checkpoints, and after them bit for bit.
TEST_F(SeveralLosses, MayHaveAScaleEach) {
  recipe("each.toml", "loss_scales = \"each\"\ngrowth_interval = 3\n", kLosses);
  const std::string out = succeed({"train", "each.toml", "--out", "whole"});
  EXPECT_THAT(out, HasSubstr(" at scale "));
  std::istringstream lines(read("whole/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const json row = json::parse(line);
    if (row["kind"] != "step") continue;
    expect_sum(row, "");
    const json& losses = row.at("losses");
    if (row.at("skipped")) continue;  // then it is that of a loss that overflowed
    EXPECT_EQ(row.at("loss_scale"), std::min(losses.at("class").at("loss_scale").get<double>(),
                                             losses.at("boxes").at("loss_scale").get<double>()));
  }
  const json scalers = json::parse(read("whole/checkpoints/step-000000016/grad_scaler.json"));
  EXPECT_EQ(scalers.size(), 2u);
  EXPECT_EQ(scalers.at("boxes").at("growth_interval"), 3);
  EXPECT_GT(scalers.at("class").at("scale"), 65536);
  succeed({"train", "each.toml", "--out", "parts", "--max_steps", "5"});
  succeed({"train", "each.toml", "--out", "parts", "--resume", "parts/checkpoints"});
  for (const char* file : {"weights.safetensors", "slots.safetensors", "grad_scaler.json"})
    EXPECT_EQ(read(std::string("whole/checkpoints/step-000000016/") + file),
              read(std::string("parts/checkpoints/step-000000016/") + file))
        << file;
  json state = scalers;
  state["boxes"]["scale"] = 1024.0;
  write("state.json", state.dump());
  succeed({"train", "each.toml", "--out", "begun", "--max_steps", "1", "--grad-scaler", "state.json"});
  const json begun = json::parse(read("begun/metrics.jsonl").substr(0, read("begun/metrics.jsonl").find('\n')));
  EXPECT_EQ(begun.at("losses").at("boxes").at("loss_scale"), 1024);
  EXPECT_EQ(begun.at("losses").at("class").at("loss_scale"), state["class"]["scale"]);
  fail(1, {"train", "r.toml", "--out", "other", "--grad-scaler", "state.json"}, {"compile it with loss_scales each"});
  succeed({"export", "each.toml", "--training-graph", "-o", "step.onnx"});
  const Finished idle = run({"check", "each.toml", "--precision", "bf16"});
  EXPECT_THAT(idle.err + idle.out, HasSubstr("loss_scales has no effect"));
}

// Labels of all batches of a step weigh alike, as in one batch of them all.
TEST_F(SeveralLosses, AccumulateWithLabelsThatDoNotCount) {
  const std::string losses =
      "[[loss]]\noutput = \"class\"\nignore_index = 0\nclass_weights = [1, 0.5, 4]\n"
      "[[loss]]\nname = \"boxes\"\nkind = \"mse\"\noutput = \"box\"\nlabels = \"corners\"\n";
  recipe("parts.toml", "accumulation = 2\nprecision = \"fp32\"\nshuffle = false\n", losses);
  std::string whole = read("parts.toml");
  whole.replace(whole.find("batch = 8"), 9, "batch = 16"), whole.replace(whole.find("accumulation = 2\n"), 17, "");
  write("whole.toml", whole);
  const json parts = json::parse(succeed({"train", "parts.toml", "--out", "a", "--json"}));
  const json at_once = json::parse(succeed({"train", "whole.toml", "--out", "b", "--json"}));
  EXPECT_NEAR(parts["epochs"][1]["loss"], at_once["epochs"][1]["loss"], 1e-5);
  EXPECT_NEAR(parts["epochs"][1]["test_loss"], at_once["epochs"][1]["test_loss"], 1e-5);
}

TEST_F(SeveralLosses, AreNodesOfTheReport) {
  const std::string report = succeed({"inspect", "r.toml"});
  EXPECT_THAT(report, HasSubstr("loss 'class'"));
  EXPECT_THAT(report, HasSubstr("loss 'boxes'"));
  EXPECT_THAT(succeed({"check", "r.toml"}), HasSubstr("ready to train"));
}

}  // namespace
}  // namespace halfstep::test
