// Runs as people know them: a directory each, the best checkpoint, averaged weights, groups and unfreezing.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "tests/cli/cli_fixture.h"
#include "training/checkpoint.h"
#include "training/run_directory.h"

namespace halfstep::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Runs : public Cli {
 protected:
  Arguments training(const Arguments& more = {}) const {
    write("m.onnx", tiny_mlp());
    return Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "2", "--seed", "3"} + data({4}, 64) + more;
  }
  std::filesystem::path newest(const std::string& run) const {
    return list_checkpoints(path(run) / "checkpoints").front().path;
  }
};

TEST_F(Runs, EachGetsADirectoryOfItsOwn) {
  EXPECT_THAT(run(training()).err, Not(HasSubstr("is taken")));
  const Finished second = run(training());
  EXPECT_EQ(second.exit_code, 0);
  EXPECT_THAT(second.err, HasSubstr("note: 'halfstep-out' is taken: this run writes to 'halfstep-out-2'; --out names"));
  EXPECT_THAT(second.out, HasSubstr("trained model  halfstep-out-2/m.trained.onnx"));
  std::filesystem::create_directory(path("halfstep-out-3"));
  write("halfstep-out-3/mine", std::string("x"));
  EXPECT_THAT(run(training()).err, HasSubstr("'halfstep-out-4'"));
  EXPECT_EQ(read("halfstep-out-3/mine"), "x");
}

TEST_F(Runs, OneThatGoesOnStaysInItsDirectory) {
  succeed(training());
  succeed(training());
  succeed(training({"--epochs", "3", "--resume", "halfstep-out-2/checkpoints"}));
  EXPECT_EQ(newest("halfstep-out-2").filename(), "step-000000024");
  EXPECT_EQ(newest("halfstep-out").filename(), "step-000000016");
  EXPECT_FALSE(std::filesystem::exists(path("halfstep-out-3")));
}

TEST_F(Runs, OverwriteRemovesARunAndNothingElse) {
  succeed(training({"--out", "run"}));
  write("run/notes.txt", std::string("mine"));
  succeed(training({"--out", "run", "--overwrite", "--max_steps", "3"}));
  EXPECT_EQ(list_checkpoints(path("run/checkpoints")).size(), 1u);
  EXPECT_EQ(newest("run").filename(), "step-000000003");
  EXPECT_THAT(read("run/metrics.jsonl"), Not(HasSubstr("\"step\":16")));
  EXPECT_EQ(read("run/notes.txt"), "mine");
}

TEST_F(Runs, OverwriteLeavesNothingThatARunWrote) {
  const Arguments first{"--out",         "run", "--measures", "confusion", "--test_data", "x=x.npy,labels=y.npy",
                        "--tensorboard", "true"};
  succeed(training(first));
  for (const char* name : {"precision.json", "confusion.svg", "m.trained.onnx", "recipe.toml"})
    ASSERT_TRUE(std::filesystem::exists(path("run") / name)) << name;
  write("run/tensorboard/mine", std::string("x"));
  write("run/recipe.old.toml", std::string("x"));
  // The step writes no precision.json and draws nothing.
  succeed({"compile", "m.onnx", "--batch", "8", "--shape", "-1,4", "-o", "step"});
  const Finished done = run({"train", "step", "--data", "x=x.npy,labels=y.npy", "--out", "run", "--overwrite", "true"},
                            {.executable = "halfstep-run"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path("run")))
    if (entry.is_regular_file() && entry.path().string().find("/checkpoints/") == std::string::npos)
      left.push_back(entry.path().filename());
  EXPECT_THAT(left, testing::UnorderedElementsAre(".lock", "metrics.jsonl", "mine", "recipe.old.toml"));
}

TEST_F(Runs, TellEachStepOnceWhereOneHadGoneFurtherAndDied) {
  succeed(training({"--out", "run", "--checkpoint_every", "4", "--keep", "0"}));
  const std::string whole = read("run/metrics.jsonl");
  for (const char* step : {"run/checkpoints/step-000000016", "run/checkpoints/step-000000012"})
    std::filesystem::remove_all(path(step));
  std::ofstream(path("run/metrics.jsonl")) << whole.substr(0, whole.find("{\"kind\":\"end\""));
  succeed(training({"--out", "run", "--checkpoint_every", "4", "--resume", "run/checkpoints"}));
  const auto steps = [](const std::string& text) {
    std::string told;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json row = nlohmann::json::parse(line);
      told += row["kind"].get<std::string>() + " " + row["step"].dump() + " ";
    }
    return told;
  };
  EXPECT_EQ(steps(read("run/metrics.jsonl")), steps(whole));
}

TEST_F(Runs, ATensorByTheNameOfSafetensorsOwnEntryIsRefusedBeforeAnythingRuns) {
  TestModel model(17);
  model.input("x", {2, 4}).weight("__metadata__", Tensor({DType::f32, {3, 4}}));
  model.node("Gemm", {"x", "__metadata__"}, {"logits"}, {{"transB", int64_t{1}}}, "fc").output("logits");
  write("named.onnx", model);
  data({4});
  const Arguments more{"--batch", "8", "--shape", "-1,4"};
  fail(1, Arguments{"train", "named.onnx"} + more + data({4}),
       {"tensor '__metadata__': safetensors files, which checkpoints are, have an entry of that name themselves"});
  const Finished checked = run(Arguments{"check", "named.onnx"} + more);
  EXPECT_THAT(checked.out + checked.err, HasSubstr("tensor '__metadata__': safetensors files"));
}

TEST_F(Runs, GoOnWhereAFormerVersionWroteARecipeWithoutAMark) {
  succeed(training({"--out", "run"}));
  const std::string marked = read("run/recipe.toml"), former = marked.substr(kRunRecipeMark.size());
  write("run/recipe.toml", former);
  succeed(training({"--out", "run", "--epochs", "3", "--resume", "run/checkpoints"}));
  EXPECT_TRUE(read("run/recipe.toml").starts_with(kRunRecipeMark));
  // One of the user's is none of it.
  for (const std::string& mine : {"# mine\n" + former, former.substr(0, former.find("\n", 400) + 1)}) {
    write("run/recipe.toml", mine);
    fail(1, training({"--out", "run", "--epochs", "4", "--resume", "run/checkpoints"}), {"holds 'recipe.toml'"});
    EXPECT_EQ(read("run/recipe.toml"), mine);
  }
}

TEST_F(Runs, OverwriteLeavesARecipeOfTheUsers) {
  succeed(training({"--out", "run"}));
  write("run/recipe.toml", std::string("batch = 8\n"));
  fail(1, training({"--out", "run", "--overwrite"}), {"output directory 'run' holds 'recipe.toml', 'm.trained.onnx'"});
  EXPECT_EQ(read("run/recipe.toml"), "batch = 8\n");
  EXPECT_EQ(newest("run").filename(), "step-000000016");
}

TEST_F(Runs, ACompiledStepTrainsBesideFilesThatItDoesNotWrite) {
  write("m.onnx", tiny_mlp());
  data({4}, 64);
  succeed({"compile", "m.onnx", "--batch", "8", "--shape", "-1,4", "-o", "step"});
  for (const char* name : {"recipe.toml", "m.trained.onnx", "precision.json"}) write(name, std::string("mine"));
  const Arguments train{"train", "step", "--data", "x=x.npy,labels=y.npy", "--out", "."};
  const Finished done = run(train, {.executable = "halfstep-run"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_EQ(read("recipe.toml"), "mine");
  write("metrics.jsonl", std::string("mine"));
  const Finished refused = run(train + Arguments{"--overwrite", "true"}, {.executable = "halfstep-run"});
  EXPECT_THAT(refused.err, HasSubstr("holds 'metrics.jsonl', which no run wrote and this one would"));
}

TEST_F(Runs, NoFileOfTheUsersIsOverwritten) {
  std::filesystem::create_directory(path("mine"));
  write("mine/recipe.toml", std::string("batch = 8\n"));
  write("mine/metrics.jsonl", std::string("{\"other\": 1}\n"));
  write("mine/m.trained.onnx", std::string("x"));
  fail(1, training({"--out", "mine"}),
       {"output directory 'mine' holds 'metrics.jsonl', 'recipe.toml', 'm.trained.onnx', which no run wrote"});
  fail(1, training({"--out", "mine", "--overwrite"}), {"which no run wrote"});
  EXPECT_EQ(read("mine/recipe.toml"), "batch = 8\n");
  // A run that died before its first checkpoint leaves files of its own.
  std::filesystem::create_directory(path("dead"));
  write("dead/recipe.toml", std::string(kRunRecipeMark) + "batch = 8\n");
  write("dead/metrics.jsonl", std::string("{\"kind\":\"step\"}\n"));
  succeed(training({"--out", "dead"}));
}

TEST_F(Runs, TheBestEpochIsKeptAndExported) {
  // A rate that ruins what the first epoch has learned, and none after it.
  write("rates", std::string("0,0.05\n8,1000\n9,0\n"));
  const std::string out = succeed(training({"--precision", "fp32", "--keep", "1", "--best", "loss", "--schedule",
                                            "file", "--schedule_file", "rates", "--out", "run"}));
  std::vector<std::string> kept;
  for (const CheckpointEntry& entry : list_checkpoints(path("run/checkpoints"))) kept.push_back(entry.path.filename());
  const TrainState last = read_checkpoint(newest("run")).train;
  ASSERT_TRUE(last.best.value);
  if (last.best.step == last.step) GTEST_FAIL() << "the last epoch was the best: the rates ruin nothing";
  EXPECT_EQ(kept.size(), 2u);
  EXPECT_THAT(out,
              HasSubstr("its weights are those of epoch " + std::to_string(last.best.epoch) + ", the best by loss"));
  // The same file as an export of that checkpoint.
  succeed({"export", "m.onnx", "--checkpoint", "run/checkpoints/" + kept.back(), "-o", "best.onnx"});
  const auto evaluation = [&](const std::string& model) {
    return nlohmann::json::parse(succeed(Arguments{"eval", model, "--batch", "8", "--json"} + data({4}, 64)))
        .at("loss");
  };
  EXPECT_EQ(evaluation("best.onnx"), evaluation("run/m.trained.onnx"));
  fail(1, training({"--best", "test_acuracy"}), {"best: no measure 'test_acuracy'; did you mean 'test_accuracy'?"});
}

TEST_F(Runs, TheBestEpochIsExportedFromTheDirectoryThatTheRunBeganIn) {
  write("rates", std::string("0,0.05\n8,1000\n9,0\n"));
  const Arguments best = training(
      {"--precision", "fp32", "--keep", "1", "--best", "loss", "--schedule", "file", "--schedule_file", "rates"});
  succeed(best + Arguments{"--epochs", "1", "--out", "a"});
  const Arguments on = best + Arguments{"--epochs", "3", "--resume", "a/checkpoints"};
  const TrainState state = read_checkpoint(newest("a")).train;
  EXPECT_EQ(state.best.measure, "loss");
  EXPECT_THAT(succeed(on + Arguments{"--out", "b"}), HasSubstr("its weights are those of epoch 1, the best by loss"));
  succeed({"export", "m.onnx", "--checkpoint", "a/checkpoints", "-o", "best.onnx"});
  const auto loss = [&](const std::string& model) {
    return nlohmann::json::parse(succeed(Arguments{"eval", model, "--batch", "8", "--json"} + data({4}, 64)))
        .at("loss");
  };
  EXPECT_EQ(loss("best.onnx"), loss("b/m.trained.onnx"));
  std::filesystem::remove_all(path("a"));
  const Finished gone = run(best + Arguments{"--epochs", "4", "--resume", "b/checkpoints"});
  EXPECT_EQ(gone.exit_code, 0);
  EXPECT_THAT(gone.err, HasSubstr("note: the checkpoint of epoch 1, the best by loss, is not there"));
}

TEST_F(Runs, AScheduleFileIsNamedWithoutItsPlaceAndReadsTheRateThatGroupsAreSharesOf) {
  write("rates", std::string("0,0.05\n"));
  const Arguments given{"--schedule", "file", "--schedule_file", path("rates").string(), "--learning_rate", "0.1"};
  const Finished alone = run(training(given + Arguments{"--out", "run"}));
  EXPECT_THAT(alone.err, HasSubstr("learning_rate has no effect: schedule is file"));
  EXPECT_THAT(read("run/m.trained.onnx"), AllOf(HasSubstr("rates"), Not(HasSubstr(path("rates").string()))));
  const Finished groups = run(training(given + Arguments{"--groups", "parameters=w2,learning_rate=0.5"}));
  EXPECT_EQ(groups.exit_code, 0);
  EXPECT_THAT(groups.err, Not(HasSubstr("learning_rate has no effect")));
}

TEST_F(Runs, PatienceEndsTraining) {
  const Finished done = run(
      training({"--epochs", "50", "--learning_rate", "0", "--shuffle", "false", "--dropout", "0", "--patience", "2"}));
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_THAT(done.err, HasSubstr("training ended after step 24: patience 2 is reached without an improvement"));
}

TEST_F(Runs, TheMeanOfTheWeightsIsEvaluatedAndExportedAndResumesBitForBit) {
  const Arguments averaged = training({"--epochs", "4", "--ema", "0.9"});
  const std::string out = succeed(averaged + Arguments{"--out", "whole"});
  EXPECT_THAT(out, HasSubstr("its weights are their running mean (ema)"));
  succeed(averaged + Arguments{"--out", "parts", "--max_steps", "5"});
  succeed(averaged + Arguments{"--out", "parts", "--resume", "parts/checkpoints"});
  for (const char* file : {"weights.safetensors", "slots.safetensors", "manifest.json"})
    EXPECT_EQ(read_file(newest("whole") / file), read_file(newest("parts") / file)) << file;
  const ModelState state = read_checkpoint(newest("whole")).model;
  EXPECT_TRUE(has_average(state));
  EXPECT_NE(weights_of(state, WeightsKind::average), state.weights);
  const Arguments data_of = data({4}, 64);
  const auto loss = [&](const Arguments& more) {
    return nlohmann::json::parse(succeed(Arguments{"eval", "m.onnx", "--batch", "8", "--json"} + data_of + more))
        .at("loss")
        .get<double>();
  };
  const double mean = loss({"--checkpoint", "whole/checkpoints"}),
               last = loss({"--checkpoint", "whole/checkpoints", "--ema_weights", "false"});
  EXPECT_NE(mean, last);
  succeed({"export", "m.onnx", "--checkpoint", "whole/checkpoints", "-o", "mean.onnx"});
  std::filesystem::copy_file(path("mean.onnx"), path("mean2.onnx"));
  EXPECT_EQ(nlohmann::json::parse(succeed(Arguments{"eval", "mean.onnx", "--batch", "8", "--json"} + data_of))
                .at("loss")
                .get<double>(),
            mean);
}

TEST_F(Runs, GroupsHaveRatesOfTheirOwnAndUnfreezeByEpochs) {
  const Arguments arguments = training({"--epochs", "2", "--keep", "0", "--optimizer", "adamw", "--groups",
                                        "parameters=w2,learning_rate=0.5;parameters=b1,weight_decay=0.3", "--unfreeze",
                                        "w1=2", "--weight_decay", "0.01", "--out", "run", "--precision", "fp32"});
  succeed(arguments);
  const FileTensors first = read_checkpoint_weights(path("run/checkpoints/step-000000008")),
                    second = read_checkpoint_weights(path("run/checkpoints/step-000000016"));
  succeed(training({"--max_steps", "1", "--learning_rate", "0", "--out", "start", "--precision", "fp32"}));
  const FileTensors start = read_checkpoint_weights(newest("start"));
  std::string frozen, trained;
  for (const auto& [name, value] : start) {
    if (first.at(name) == value) frozen += name + " ";
    if (first.at(name) != second.at(name)) trained += name + " ";
  }
  EXPECT_EQ(frozen, "w1 ");
  EXPECT_EQ(trained, "b1 b2 w1 w2 ");
}

}  // namespace
}  // namespace halfstep::test
