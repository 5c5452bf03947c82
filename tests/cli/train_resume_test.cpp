// A run that was stopped and goes on ends with the very bits of one that was not.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/cli_fixture.h"
#include "training/checkpoint.h"

namespace halfstep::test {
namespace {

constexpr const char* kFiles[] = {"weights.safetensors", "slots.safetensors", "manifest.json"};

class Resume : public Cli {
 protected:
  std::filesystem::path newest(const std::string& run) const {
    return list_checkpoints(path(run) / "checkpoints").front().path;
  }
  // Whether the run's metrics have come to this step.
  std::function<bool()> reached(const std::string& run, int64_t step) const {
    return [metrics = path(run) / "metrics.jsonl", line = "\"step\":" + std::to_string(step) + ","] {
      return std::filesystem::exists(metrics) && read_file(metrics).find(line) != std::string::npos;
    };
  }
  // The checkpoints of two runs after the same step, byte for byte.
  void expect_equal(const std::string& run, const std::string& other) const {
    EXPECT_EQ(newest(run).filename(), newest(other).filename());
    for (const char* file : kFiles) EXPECT_EQ(read_file(newest(run) / file), read_file(newest(other) / file)) << file;
  }
  void stop_in_the_middle(const Arguments& train) const {
    succeed(train + Arguments{"--out", "whole", "--max_steps", "22"});
    succeed(train + Arguments{"--out", "parts", "--max_steps", "5"});
    const Checkpoint stopped = read_checkpoint(newest("parts"));
    ASSERT_GT(stopped.train.position, 0);  // inside an epoch
    succeed(train + Arguments{"--out", "parts", "--max_steps", "22", "--resume", "parts/checkpoints"});
    expect_equal("whole", "parts");
    // The comparison can fail: a run with another seed ends elsewhere.
    succeed(train + Arguments{"--out", "other", "--max_steps", "22", "--seed", "4"});
    EXPECT_NE(read_file(newest("whole") / kFiles[0]), read_file(newest("other") / kFiles[0]));
  }
};

TEST_F(Resume, WithDropoutAndMomentumInFp16) {
  write("m.onnx", tiny_mlp());
  stop_in_the_middle(Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "5", "--seed", "3", "--momentum", "0.9",
                               "--schedule", "cosine", "--warmup_steps", "7", "--growth_interval", "6"} +
                     data({4}, 70));
}

TEST_F(Resume, ATrainedModelTellsThatItsDropoutsAreGone) {
  write("m.onnx", tiny_mlp());
  const Arguments keys = Arguments{"--batch", "8", "--out", "run", "--overwrite"} + data({4});
  EXPECT_THAT(run(Arguments{"train", "m.onnx"} + keys).err, testing::Not(testing::HasSubstr("dropouts")));
  std::filesystem::rename(path("run/m.trained.onnx"), path("trained.onnx"));
  EXPECT_THAT(run(Arguments{"train", "trained.onnx"} + keys).err,
              testing::HasSubstr("written for inference without its dropouts (1 of them)"));
}

TEST_F(Resume, InTheMidstOfOverflowsThatAreSpared) {
  write("m.onnx", tiny_mlp());
  stop_in_the_middle(Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "5", "--seed", "3", "--initial_scale",
                               "524288", "--hysteresis", "5", "--growth_interval", "1"} +
                     data({4}, 70));
  EXPECT_NE(read_file(newest("whole") / "slots.safetensors").find("loss_scale.hysteresis"), std::string::npos);
}

TEST_F(Resume, WithAccumulationAndBatchStatisticsInBf16) {
  write("m.onnx", tiny_convnet());
  stop_in_the_middle(Arguments{"train", "m.onnx", "--batch", "4", "--accumulation", "3", "--epochs", "5", "--seed", "3",
                               "--optimizer", "adamw", "--weight_decay", "0.01", "--precision", "bf16", "--clip_norm",
                               "1"} +
                     data({1, 6, 6}, 100));
}

TEST_F(Resume, AfterAnInterrupt) {
  write("m.onnx", tiny_mlp());
  const Arguments train = Arguments{"train",  "m.onnx", "--batch",         "4", "--epochs",    "100000", "--seed", "3",
                                    "--keep", "1",      "--metrics_every", "1", "--optimizer", "adam"} +
                          data({4}, 4000);
  const Finished stopped = run(train + Arguments{"--out", "parts"}, {.interrupt_when = reached("parts", 1300)});
  EXPECT_EQ(stopped.exit_code, 130);
  const int64_t step = list_checkpoints(path("parts") / "checkpoints").front().step;
  EXPECT_GE(step, 1300);
  EXPECT_THAT(stopped.err, testing::HasSubstr("stopped by a signal after step " + std::to_string(step)));
  EXPECT_THAT(stopped.err, testing::HasSubstr("go on with --resume parts/checkpoints/step-"));
  const std::string end = std::to_string(step + 41);
  succeed(train + Arguments{"--out", "parts", "--resume", "parts/checkpoints", "--max_steps", end});
  succeed(train + Arguments{"--out", "whole", "--max_steps", end});
  expect_equal("whole", "parts");
}

// The scale grows beyond what fp16 holds after the first step; the second is skipped.
TEST_F(Resume, WithNothingLeftButASkippedStepEndsWell) {
  write("m.onnx", tiny_mlp());
  const Arguments train = Arguments{"train",           "m.onnx", "--batch",         "8",    "--growth_interval", "1",
                                    "--growth_factor", "1e20",   "--initial_scale", "1",    "--precision",       "fp16",
                                    "--epochs",        "1",      "--out",           "parts"} +
                          data({4});
  succeed(train + Arguments{"--max_steps", "1"});
  const auto resumed =
      nlohmann::json::parse(succeed(train + Arguments{"--max_steps", "2", "--resume", "parts/checkpoints", "--json"}));
  EXPECT_EQ(resumed["steps"], 2);
  EXPECT_NE(read("parts/metrics.jsonl").find("\"skipped\":true"), std::string::npos);
}

TEST_F(Resume, ATerminatedRunHasItsOwnExitCode) {
  write("m.onnx", tiny_mlp());
  const Finished stopped =
      run(Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "100000", "--out", "run", "--json"} + data({4}),
          {.interrupt_when = reached("run", 20), .signal = SIGTERM});
  EXPECT_EQ(stopped.exit_code, 143);
  EXPECT_EQ(nlohmann::json::parse(stopped.out)["reason"], "interrupted");
  EXPECT_EQ(stopped.err, "");
}

TEST_F(Resume, TwoRunsDoNotShareADirectory) {
  write("m.onnx", tiny_mlp());
  const Arguments train =
      Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "100000", "--out", "run"} + data({4});
  Finished second;
  const Finished first = run(train, {.interrupt_when = [&] {
                               if (!reached("run", 20)()) return false;
                               second = run(train + Arguments{"--resume", "run/checkpoints"});
                               return true;
                             }});
  EXPECT_EQ(first.exit_code, 130);
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, testing::HasSubstr("output directory 'run' is in use by another run (process "));
}

TEST_F(Resume, OfAFinishedRunSaysSo) {
  write("m.onnx", tiny_mlp());
  const Arguments train = Arguments{"train", "m.onnx", "--batch", "8", "--out", "run"} + data({4});
  succeed(train);
  const Finished again = run(train + Arguments{"--resume", "run/checkpoints"});
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.err, testing::HasSubstr("give more --epochs"));
}

}  // namespace
}  // namespace halfstep::test
