// Losses by name, on models of one logit and of several.
#include <gtest/gtest.h>

#include <sstream>

#include "tests/cli/cli_fixture.h"
#include "tests/data/data_files.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Losses : public Cli {
 protected:
  static constexpr int kSamples = 64;

  // x f32[2,4] -> Gemm "fc" -> `last`, if one is named -> y f32[2,columns].
  std::string model(const std::string& name, int64_t columns, const std::string& last = "") const {
    TestModel m(17);
    m.input("x", {2, 4}).weight("w", ramp({columns, 4}, -0.3, 0.07));
    m.node("Gemm", {"x", "w"}, {last.empty() ? "y" : "z"}, {{"transB", int64_t{1}}}, "fc");
    if (!last.empty()) m.node(last, {"z"}, {"y"}, {}, "last");
    return write(name, m.output("y"));
  }
  // Samples of +1 or -1, and as labels whether they are +1 in each of `columns` columns.
  void data(int columns) const {
    std::string x, i64, u8, f32;
    for (int i = 0; i < kSamples; ++i) {
      for (int k = 0; k < 4; ++k) append(x, (i >> k) % 2 == 0 ? 1.0f : -1.0f);
      for (int k = 0; k < columns; ++k) {
        const bool yes = (i >> k) % 2 == 0;
        append(i64, int64_t{yes}), append(u8, static_cast<uint8_t>(yes)), append(f32, yes ? 1.0f : 0.0f);
      }
    }
    const std::string shape = columns == 1 ? "(64,)" : "(64, " + std::to_string(columns) + ")";
    write("x.npy", npy("<f4", "(64, 4)", x)), write("i64.npy", npy("<i8", shape, i64));
    write("u8.npy", npy("|u1", shape, u8)), write("bool.npy", npy("|b1", shape, u8));
    write("f32.npy", npy("<f4", shape, f32));
  }
  Arguments train(const std::string& model, const std::string& labels, const Arguments& more) const {
    return Arguments{"train",           model, "--data",   "x=x.npy,labels=" + labels + ".npy",
                     "--batch",         "8",   "--epochs", "4",
                     "--learning-rate", "0.5", "--json"} +
           more;
  }
};

TEST_F(Losses, OneLogitAsksForTheRightOne) {
  model("m.onnx", 1), data(1);
  fail(1, train("m.onnx", "i64", {}), {"output 'y' is f32[8,1]", "set loss to bce_with_logits"});
  EXPECT_THAT(run({"check", "m.onnx"}).out, HasSubstr("set loss to bce_with_logits"));
  const json trained = json::parse(succeed(train("m.onnx", "i64", {"--loss", "bce", "--out", "run"})));
  EXPECT_LT(trained["epochs"][3]["loss"], 0.3);
  EXPECT_EQ(trained["epochs"][3]["accuracy"], 1);
  EXPECT_THAT(read("run/recipe.toml"), HasSubstr("loss = \"bce_with_logits\""));
}

TEST_F(Losses, LabelsOfEveryTypeAreTheSame) {
  model("m.onnx", 3), data(3);
  std::map<std::string, std::string> weights;
  for (const char* type : {"i64", "u8", "bool", "f32"}) {
    succeed(train("m.onnx", type, {"--loss", "bce_with_logits", "--pos_weight", "1,2,0.5", "--out", type}));
    weights[type] = read(std::string(type) + "/checkpoints/step-000000032/weights.safetensors");
  }
  for (const char* type : {"u8", "bool", "f32"}) EXPECT_EQ(weights[type], weights["i64"]) << type;
}

TEST_F(Losses, LabelsBeyondItsOwnAreNamed) {
  model("m.onnx", 1), data(1);
  std::string two;
  for (int i = 0; i < kSamples; ++i) append(two, int64_t{i == 5 ? 2 : 1});
  write("two.npy", npy("<i8", "(64,)", two));
  fail(1, train("m.onnx", "two", {"--loss", "bce"}),
       {"data array 'labels': sample 5 has label 2, expected 0 to 1 (1 such samples)", "softmax_cross_entropy"});
  succeed(train("m.onnx", "two", {"--loss", "bce", "--ignore_index", "2", "--out", "ignored"}));
}

TEST_F(Losses, AreTakenOfTheLogitsBehindASigmoid) {
  model("m.onnx", 1), model("p.onnx", 1, "Sigmoid"), data(1);
  const json plain = json::parse(succeed(train("m.onnx", "i64", {"--loss", "bce", "--out", "a"})));
  Arguments in_words = train("p.onnx", "i64", {"--loss", "bce", "--out", "b"});
  std::erase(in_words, "--json");
  const Finished looked = run(in_words);
  EXPECT_EQ(looked.exit_code, 0) << looked.err;
  EXPECT_THAT(looked.err,
              HasSubstr("output 'y' holds probabilities (of 'last'): the loss takes the logits behind them"));
  EXPECT_EQ(read("a/checkpoints/step-000000032/weights.safetensors"),
            read("b/checkpoints/step-000000032/weights.safetensors"));
}

TEST_F(Losses, WhatCannotBeIsRefused) {
  model("m.onnx", 3), model("s.onnx", 3, "Softmax"), data(3);
  fail(1, train("m.onnx", "i64", {"--loss", "hubert"}),
       {"loss: one of softmax_cross_entropy|", "did you mean 'huber'?"});
  fail(1, train("m.onnx", "i64", {"--loss", "bce", "--pos_weight", "1,2"}), {"pos_weight has 2 values, the output 3"});
  fail(1, train("m.onnx", "i64", {"--loss", "bce", "--pos_weight", "-1"}), {"pos_weight: a number from 0 to 1e+10"});
  fail(1, train("m.onnx", "i64", {"--class_weights", "0,0,0"}), {"class_weights: all are 0"});
  fail(1, train("m.onnx", "i64", {"--loss", "huber", "--delta", "0"}), {"delta: at least 1e-10 expected, found 0"});
  fail(1, train("s.onnx", "i64", {"--loss", "bce"}), {"output 'y' is a softmax", "take softmax_cross_entropy"});
  fail(1, train("m.onnx", "i64", {}), {"labels of 0 and 1 for each class are bce_with_logits's"});
  fail(1, train("m.onnx", "i64", {"--loss", "bce", "--class_axis", "-5"}),
       {"loss: class_axis -5 of output 'y'", "from 1 to 1, or from -1 to -1 expected"});
  write("one.npy", npy("<i8", "(64,)", std::string(512, '\0')));
  fail(1, train("m.onnx", "one", {"--loss", "bce"}), {"a label of 0 or 1 for each number of the output"});
  EXPECT_THAT(run({"check", "m.onnx", "--objective", "next_token", "--loss", "mse"}).out,
              HasSubstr("its labels are tokens"));
  const Finished idle = run({"check", "m.onnx", "--loss", "l1", "--delta", "2", "--pos_weight", "3"});
  EXPECT_THAT(idle.err + idle.out, testing::AllOf(HasSubstr("delta has no effect: loss is l1"),
                                                  HasSubstr("pos_weight has no effect: loss is l1")));
}

// Of random labels that the loss takes.
TEST_F(Losses, AreTimedOnLabelsTheyTake) {
  model("m.onnx", 3), model("l.onnx", 3, "LogSoftmax");
  for (const Arguments& loss : {Arguments{"m.onnx", "--loss", "bce"}, Arguments{"l.onnx", "--loss", "kl_div"},
                                Arguments{"l.onnx", "--loss", "kl_div", "--log_target", "true"}})
    succeed(Arguments{"bench"} + loss + Arguments{"--batch", "8", "--repeats", "3"});
}

TEST_F(Losses, RunWithoutACompiler) {
  model("m.onnx", 3), data(3);
  succeed({"compile", "m.onnx", "--loss", "bce", "--focal_gamma", "2", "--batch", "8", "-o", "step"});
  RunOptions runner;
  runner.executable = "halfstep-run";
  const Finished trained = run({"train", "step", "--data", "x=x.npy,labels=u8.npy", "--out", "run"}, runner);
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  succeed({"train", "m.onnx", "--loss", "bce", "--focal_gamma", "2", "--batch", "8", "--data", "x=x.npy,labels=u8.npy",
           "--out", "here", "--architecture", "x86-64-v3"});
  EXPECT_EQ(read("run/checkpoints/step-000000008/weights.safetensors"),
            read("here/checkpoints/step-000000008/weights.safetensors"));
  write("bad.npy", npy("|u1", "(64, 3)", std::string(192, '\3')));
  const Finished refused = run({"train", "step", "--data", "x=x.npy,labels=bad.npy", "--out", "bad"}, runner);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("has label 3, expected 0 to 1"));
}

}  // namespace
}  // namespace halfstep::test
