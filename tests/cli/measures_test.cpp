// Measures of evaluation through the executables: in what a run prints, in its files, after compile.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "data/npy.h"
#include "data/npy_write.h"
#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class MeasuresRun : public Cli {
 protected:
  const Arguments keys_{"--batch", "8", "--shape", "-1,4"};
  void SetUp() override { write("m.onnx", tiny_mlp()); }
};

TEST_F(MeasuresRun, StandInOutputAndFiles) {
  const Arguments given = data({4}, 60);
  write("names.txt", "cat\ndog\neel\n");
  const Arguments measures{"--measures", "f1,auc,confusion,top2", "--per_class", "true", "--class_names",
                           "names.txt",  "--test_data",           given[1]};
  const std::string text =
      succeed(Arguments{"train", "m.onnx", "--epochs", "2", "--out", "run"} + keys_ + given + measures);
  EXPECT_THAT(text, testing::AllOf(HasSubstr("test f1 "), HasSubstr(", auc "), HasSubstr(", top2 "),
                                   HasSubstr("a row for each label, a column for each guess"), HasSubstr("1 dog")));
  std::istringstream lines(read("run/metrics.jsonl"));
  json last_epoch;
  for (std::string line; std::getline(lines, line);)
    if (json row = json::parse(line); row["kind"] == "epoch") last_epoch = row;
  EXPECT_TRUE(last_epoch["test_f1"].is_number() && last_epoch["test_auc"].is_number());
  EXPECT_EQ(last_epoch["test_per_class"][1]["class"], "dog");
  EXPECT_THAT(read("run/confusion.svg"), HasSubstr("dog as dog"));

  const Arguments eval = Arguments{"--checkpoint", "run/checkpoints"} + given + measures, as_json{"--json"};
  const json evaluated = json::parse(succeed(Arguments{"eval", "m.onnx"} + keys_ + eval + as_json));
  for (const char* name : {"f1", "auc", "top2", "confusion", "per_class"})
    EXPECT_EQ(evaluated[name], last_epoch[std::string("test_") + name]) << name;
  int64_t right = 0, all = 0;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j)
      all += evaluated["confusion"][i][j].get<int64_t>(),
          right += i == j ? evaluated["confusion"][i][j].get<int64_t>() : 0;
  EXPECT_EQ(all, 60);
  EXPECT_NEAR(static_cast<double>(right) / 60, evaluated["accuracy"].get<double>(), 1e-6) << "as the step counts";

  // After compile: with the measures, and refused without what they need.
  succeed(Arguments{"compile", "m.onnx", "-o", "step"} + keys_ + measures);
  const Finished there = run(Arguments{"eval", "step"} + eval + as_json, {.executable = "halfstep-run"});
  EXPECT_EQ(json::parse(there.out)["auc"], evaluated["auc"]) << there.err;
  succeed(Arguments{"compile", "m.onnx", "-o", "plain"} + keys_);
  fail(1, Arguments{"eval", "plain"} + eval, {"compiled without output 'logits'", "compile it again with these"});
}

TEST_F(MeasuresRun, OfValuesAreTakenOfTheTargets) {
  const Arguments given = data({4}, 60);
  Tensor targets(TensorType{DType::f32, {60, 3}});
  for (int64_t i = 0; i < 180; ++i) targets.set(i, static_cast<double>(i % 7));
  FileTensors arrays{{"x", read_npy(*open_data_file(path("x.npy")))}, {"targets", targets}};
  write_npz(path("d.npz"), arrays);
  const json e = json::parse(succeed(Arguments{"eval", "m.onnx", "--loss", "mean_squared_error", "--data", "d.npz",
                                               "--measures", "rmse,mae,r2", "--precision", "fp32", "--json"} +
                                     keys_));
  EXPECT_NEAR(e["rmse"].get<double>() * e["rmse"].get<double>(), e["loss"].get<double>(),
              1e-5 * e["loss"].get<double>());
  EXPECT_LT(e["r2"].get<double>(), 1);
  EXPECT_GT(e["mae"].get<double>(), 0);
}

TEST_F(MeasuresRun, OfLabelsThatHoldOrNotAreThoseOfThePredictions) {
  data({4}, 60);
  Tensor labels(TensorType{DType::f32, {60, 3}});
  for (int64_t i = 0; i < 180; ++i) labels.set(i, i % 5 < 2 ? 1 : 0);
  write_npz(path("d.npz"), {{"x", read_npy(*open_data_file(path("x.npy")))}, {"labels", labels}});
  const Arguments keys =
      Arguments{"m.onnx", "--loss", "bce_with_logits", "--data", "d.npz", "--precision", "fp32"} + keys_;
  const json e = json::parse(succeed(Arguments{"eval", "--measures", "f1_micro,auc,accuracy", "--json"} + keys));
  succeed(Arguments{"predict", "-o", "p.npy"} + keys);
  succeed(Arguments{"predict", "--probabilities", "-o", "q.npy"} + keys);
  const Tensor logits = read_npy(*open_data_file(path("p.npy"))), shares = read_npy(*open_data_file(path("q.npy")));
  double right = 0, guessed = 0, held = 0, agree = 0;
  for (int64_t i = 0; i < 180; ++i) {
    const bool guess = logits.at(i) > 0, holds = labels.at(i) > 0.5;
    right += guess && holds, guessed += guess, held += holds, agree += guess == holds;
    EXPECT_NEAR(shares.at(i), 1 / (1 + std::exp(-logits.at(i))), 1e-6);
  }
  EXPECT_NEAR(e["f1_micro"].get<double>(), 2 * right / (guessed + held), 1e-12);
  EXPECT_NEAR(e["accuracy"].get<double>(), agree / 180, 1e-6);
  EXPECT_TRUE(e["auc"].get<double>() > 0 && e["auc"].get<double>() < 1);
  fail(1, Arguments{"eval", "--measures", "confusion"} + keys, {"output 'logits' has 3 labels that hold or not"});
}

TEST_F(MeasuresRun, RefuseBeforeTheFirstStep) {
  const Arguments given = data({4}, 60) + Arguments{"--test_data", "x=x.npy,labels=y.npy"};
  const Arguments train = Arguments{"train", "m.onnx", "--out", "run"} + keys_ + given;
  fail(1, train + Arguments{"--measures", "f2"}, {"no measure 'f2', did you mean 'f1'"});
  fail(1, train + Arguments{"--measures", "mae,f1_macr"},
       {"'mae' is none of output 'logits'", "did you mean 'f1_macro'"});
  fail(1, train + Arguments{"--measures", "f1", "--class_names", "none"}, {"cannot open 'none'"});
  EXPECT_FALSE(std::filesystem::exists(path("run/checkpoints/step-000000001")));
}

}  // namespace
}  // namespace halfstep::test
