#include "training/metrics.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/file.h"

namespace halfstep {
namespace {

std::vector<nlohmann::json> lines_of(const std::filesystem::path& path) {
  std::istringstream text(read_file(path));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// A run that went on to step 7 and died, whose last checkpoint is that of step 4.
TEST(Metrics, HoldEachStepOnceWhenARunGoesOn) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  {
    MetricsFile metrics(path, 1);
    for (int64_t step = 1; step <= 7; ++step) {
      metrics.step_finished({.step = step, .epoch = 1 + (step - 1) / 3, .loss = 1});
      if (step % 3 == 0) metrics.epoch_finished({.epoch = step / 3, .step = step});
    }
  }
  std::ofstream(path, std::ios::app) << "{\"kind\":\"st";  // as on a full disk
  MetricsFile metrics(path, 1);
  metrics.run_begun(4);
  metrics.step_finished({.step = 5, .epoch = 2, .loss = 0.5});
  std::string told;
  for (const auto& line : lines_of(path))
    told += line["kind"].get<std::string>() + " " + line["step"].dump() + " " + line["loss"].dump() + "\n";
  EXPECT_EQ(told,
            "step 1 1.0\nstep 2 1.0\nstep 3 1.0\nepoch 3 0.0\nstep 4 1.0\n"
            "step 5 0.5\n");
  MetricsFile anew(path, 1);
  anew.run_begun(0);
  EXPECT_TRUE(lines_of(path).empty());
  anew.step_finished({.step = 1, .epoch = 1, .loss = 1});
  anew.finished({.steps = 1});
  const std::string whole = read_file(path);
  MetricsFile(path, 1).run_begun(0);
  EXPECT_EQ(read_file(path), whole) << "a run that ended is not taken back";
}

TEST(Metrics, AreJsonLinesThatAreThereAtOnce) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  MetricsFile metrics(path, 2);
  for (int64_t step = 1; step <= 4; ++step)
    metrics.step_finished({.step = step,
                           .epoch = 1,
                           .loss = 0.5,
                           .accuracy = 0.25,
                           .loss_scale = 1024,
                           .skipped = step == 4,
                           .learning_rate = 0.1,
                           .samples_per_second = 99});
  ASSERT_EQ(lines_of(path).size(), 2u);
  const auto step = lines_of(path)[1];
  EXPECT_EQ(step, nlohmann::json::parse(R"({"kind": "step", "step": 4, "epoch": 1, "loss": 0.5, "accuracy": 0.25,
      "loss_scale": 1024.0, "skipped": true, "learning_rate": 0.1, "samples_per_second": 99.0})"));
  metrics.epoch_finished({.epoch = 1,
                          .step = 4,
                          .loss = std::nan(""),
                          .accuracy = {},
                          .test = Evaluation{.loss = 2},
                          .loss_scale = {},
                          .skipped = 1});
  const auto epoch = lines_of(path)[2];
  EXPECT_EQ(epoch["kind"], "epoch");
  EXPECT_TRUE(epoch["loss"].is_null());
  EXPECT_FALSE(epoch.contains("accuracy"));
  EXPECT_EQ(epoch["test_loss"], 2);
  EXPECT_EQ(epoch["skipped"], 1);
  metrics.finished({.reason = StopReason::interrupted,
                    .steps = 4,
                    .epochs = {},
                    .checkpoint = {},
                    .seconds = 1,
                    .counters = {.graph_launches = 4},
                    .memory = {.scratch_bytes = 8}});
  const auto end = lines_of(path)[3];
  EXPECT_EQ(end["reason"], "interrupted");
  EXPECT_EQ(end["counters"]["graph_launches"], 4);
  EXPECT_EQ(end["memory"]["scratch_bytes"], 8);
}

TEST(Metrics, AppendToWhatIsThere) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "metrics.jsonl";
  MetricsFile(path, 1).step_finished({.step = 1});
  MetricsFile(path, 1).step_finished({.step = 2});
  EXPECT_EQ(lines_of(path).size(), 2u);
  MetricsFile(path, 0).step_finished({.step = 3});
  EXPECT_EQ(lines_of(path).size(), 2u);
}

TEST(Metrics, APipeIsRefusedAndDoesNotHang) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "metrics.jsonl";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT([&] { MetricsFile(path, 1); }, testing::ThrowsMessage<Error>(testing::HasSubstr("metrics.jsonl'")));
}

TEST(Metrics, FilesThatCannotBeWrittenAreNamed) {
  TemporaryDirectory directory;
  EXPECT_THAT([&] { MetricsFile(directory.path(), 1); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("cannot open metrics file")));
  EXPECT_THAT([&] { MetricsFile("/dev/full", 1).step_finished({.step = 1}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("cannot write metrics file '/dev/full'")));
}

}  // namespace
}  // namespace halfstep
