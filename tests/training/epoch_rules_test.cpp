// Rules between epochs, and schedules, against what PyTorch recorded (models/record_optimizers.py).
#include "training/epoch_rules.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/file.h"
#include "tests/recorded.h"
#include "training/recipe_keys.h"
#include "training/run_setup.h"

namespace halfstep {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(RecordedSchedules, EveryStepOfARun) {
  const nlohmann::json reference = recorded("optimizers");
  const TrainingLength length{.steps_per_epoch = reference.at("steps_per_epoch"), .epochs = reference.at("epochs")};
  ASSERT_GE(reference.at("schedules").size(), 11u);
  for (const auto& [name, schedule] : reference.at("schedules").items()) {
    SCOPED_TRACE(name);
    Recipe recipe;
    set_key(recipe, "learning_rate", "0.1");
    for (const auto& [key, value] : schedule.at("keys").items())
      set_key(recipe, key, value.is_string() ? value.get<std::string>() : value.dump());
    const LearningRateSchedule s = schedule_of(recipe);
    check(s);
    for (int64_t step = 0; const double rate : schedule.at("rates")) {
      EXPECT_NEAR(learning_rate(s, length, step), rate, 1e-12 * rate + 1e-16) << "step " << step;
      ++step;
    }
  }
}

TEST(RecordedSchedules, Plateau) {
  const nlohmann::json reference = recorded("optimizers").at("plateau");
  for (const auto& [name, one] : reference.at("cases").items()) {
    SCOPED_TRACE(name);
    const nlohmann::json& o = one.at("options");
    const LearningRateSchedule schedule{
        .kind = "plateau", .learning_rate = 0.1, .gamma = o.value("factor", 0.1), .final_rate = o.value("min_lr", 0.0)};
    const PlateauRule rule{.measure = one.at("mode") == "max" ? "accuracy" : "loss",
                           .patience = o.value("patience", 10),
                           .cooldown = o.value("cooldown", 0),
                           .threshold = o.value("threshold", 1e-4)};
    PlateauState state;
    for (size_t i = 0; i < reference.at("measures").size(); ++i) {
      state = after_epoch(state, rule, schedule, reference.at("measures")[i]);
      EXPECT_NEAR(state.rate.value_or(0.1), one.at("rates")[i].get<double>(), 1e-15) << "epoch " << i;
    }
  }
}

TEST(EpochRules, PatienceLooksAtImprovementsLargerThanMinDelta) {
  const BestRule rule{.measure = "loss", .patience = 3, .min_delta = 0.05};
  BestState state;
  std::vector<int64_t> waited;
  for (int64_t epoch = 1; const double loss : {1.0, 0.98, 0.96, 0.94, 0.95, 0.5}) {
    state = after_epoch(state, rule, loss, epoch, epoch * 10);
    waited.push_back(state.waited);
    ++epoch;
  }
  EXPECT_THAT(waited, testing::ElementsAre(0, 1, 2, 0, 1, 0));
  EXPECT_EQ(state.epoch, 6);
  EXPECT_EQ(state.step, 60);
  EXPECT_EQ(state.value, 0.5);
}

TEST(EpochRules, TheBestIsTheLargestOfAccuracyAndNeverANumberThatIsNone) {
  const BestRule rule{.measure = "test_accuracy"};
  BestState state;
  for (int64_t epoch = 1; const double value : {std::nan(""), 0.5, 0.7, 0.7, 0.6})
    state = after_epoch(state, rule, value, epoch, epoch), ++epoch;
  EXPECT_EQ(state.value, 0.7);
  EXPECT_EQ(state.epoch, 3) << "of equals the first";
}

TEST(EpochRules, MeasuresAreThoseOfTheMetrics) {
  EpochRow row;
  row.loss = 2, row.accuracy = 0.5;
  EXPECT_EQ(measure_of(row, "loss"), 2);
  EXPECT_EQ(measure_of(row, "accuracy"), 0.5);
  EXPECT_EQ(measure_of(row, "test_loss"), std::nullopt);
  row.test = Evaluation{.loss = 3, .accuracy = 0.25};
  EXPECT_EQ(measure_of(row, "test_loss"), 3);
  EXPECT_EQ(measure_of(row, "test_accuracy"), 0.25);
  EXPECT_THAT([] { check_measure("best", "test_acuracy", {}); },
              ThrowsMessage<Error>(HasSubstr("best: no measure 'test_acuracy'; did you mean 'test_accuracy'?")));
}

class ScheduleFile : public testing::Test {
 protected:
  std::vector<std::pair<int64_t, double>> read(const std::string& text) const {
    write_file_atomically(directory_.path() / "rates", text);
    return read_schedule_file(directory_.path() / "rates");
  }
  void refuse(const std::string& text, const std::string& part) const {
    EXPECT_THAT([&] { read(text); }, ThrowsMessage<Error>(HasSubstr(part)));
  }
  TemporaryDirectory directory_;
};

TEST_F(ScheduleFile, ARateALineOrStepsAndRates) {
  using Points = std::vector<std::pair<int64_t, double>>;
  EXPECT_EQ(read("# warm\n0.1\n\n0.2 # and on\n0.3"), (Points{{0, 0.1}, {1, 0.2}, {2, 0.3}}));
  EXPECT_EQ(read("0, 0.1\r\n100,0.01\n"), (Points{{0, 0.1}, {100, 0.01}}));
  const LearningRateSchedule s{.kind = "file", .warmup_steps = 50, .points = read("0,0.5\n10,0.25\n")};
  const TrainingLength length;
  EXPECT_EQ(learning_rate(s, length, 0), 0.5) << "no warm-up";
  EXPECT_EQ(learning_rate(s, length, 9), 0.5);
  EXPECT_EQ(learning_rate(s, length, 10), 0.25);
  EXPECT_EQ(learning_rate(s, length, 1000), 0.25);
}

TEST_F(ScheduleFile, MistakesNameTheirLine) {
  refuse("0.1\n0,2\n", "line 2: a rate of at least 0 expected, found '0,2'");
  refuse("0,0.1\n0.2\n", "line 2: STEP,RATE expected, found '0.2'");
  refuse("0.1\nfast\n", "line 2: a rate of at least 0 expected, found 'fast'");
  refuse("-0.1\n", "line 1: a rate of at least 0 expected");
  refuse("nan\n", "line 1: a rate of at least 0 expected");
  refuse("5,0.1\n", "line 1: step 0 first expected, found step 5");
  refuse("0,0.1\n7,0.1\n7,0.2\n", "line 3: a step after 7 expected, found step 7");
  refuse("# nothing\n", "it holds no rates");
}

TEST(EpochMeasures, AreAlsoThoseThatTheRecipeAsksFor) {
  const EpochMeasures run{.asked = {"f1", "mae", "confusion"}, .held_out = {"f1", "mae"}, .is_evaluated = true};
  check_measure("best", "test_f1", run);
  EXPECT_TRUE(is_better_larger("test_f1"));
  EXPECT_FALSE(is_better_larger("test_mae"));
  EpochRow row;
  row.test.emplace().measures.values = {{"f1", 0.75}};
  EXPECT_EQ(measure_of(row, "test_f1"), 0.75);
  EXPECT_EQ(measure_of(row, "test_mae"), std::nullopt);
  const auto refused = [&](const char* name, const char* part) {
    EXPECT_THAT([&] { check_measure("best", name, run); }, ThrowsMessage<Error>(HasSubstr(part)));
  };
  refused("f1", "best: f1 is of held-out data alone: take test_f1");
  refused("test_confusion", "best: test_confusion is a table and no number");
  refused("test_auc", "best: test_auc is taken where key measures names auc");
}

TEST(EpochMeasures, AreRefusedWhereEpochsWillNotHaveThem) {
  // What evaluations of two losses, 'class' and 'box', tell.
  const EpochMeasures several{.asked = {"f1", "perplexity"},
                              .held_out = {"class.f1", "class.perplexity", "class.accuracy"},
                              .is_evaluated = true,
                              .has_classes = true};
  const auto refused = [](const char* name, const EpochMeasures& run, const char* part) {
    EXPECT_THAT([&] { check_measure("best", name, run); }, ThrowsMessage<Error>(HasSubstr(part)));
  };
  for (const char* name : {"test_class.f1", "test_class.accuracy", "test_accuracy", "accuracy", "test_loss"})
    check_measure("best", name, several);
  refused("test_f1", several, "best: test_f1 is one of each loss: take test_class.f1");
  refused("f1", several, "best: f1 is of held-out data alone: take test_class.f1");
  refused("perplexity", several, "best: perplexity is of held-out data alone: take test_class.perplexity");
  refused("test_box.f1", several, "best: no measure 'test_box.f1'");
  refused("bits_per_byte", {.has_tokens = true}, "is of a text's bytes, and the data are none: take loss");
  refused("accuracy", {}, "best: accuracy is of classes, and the loss has none: take loss");
  refused("test_f1", {.asked = {"f1"}}, "best: test_f1 is of held-out data, and there is none");
  EpochRow row;
  row.test = Evaluation{.losses = {{.name = "class", .accuracy = 0.75}}};
  EXPECT_EQ(measure_of(row, "test_class.accuracy"), 0.75);
}

TEST(EpochRules, WhatIsBestByOneMeasureIsNotByAnother) {
  const BestRule loss{.measure = "test_loss", .patience = 2}, accuracy{.measure = "test_accuracy"};
  BestState best = after_epoch({}, accuracy, 0.91, 1, 10);
  EXPECT_EQ(of_rule(best, accuracy), best);
  EXPECT_EQ(of_rule(best, {}), best) << "a run that looks at none";
  best = after_epoch(best, loss, 1.2, 2, 20);
  EXPECT_EQ(best.value, 1.2);
  EXPECT_EQ(best.epoch, 2);
  EXPECT_EQ(best.waited, 0);
  const LearningRateSchedule schedule{.kind = "plateau", .learning_rate = 1, .gamma = 0.5};
  PlateauState plateau{.measure = "accuracy", .best = 0.91, .bad_epochs = 3, .rate = 0.5};
  plateau = after_epoch(plateau, {.measure = "loss"}, schedule, 1.2);
  EXPECT_EQ(plateau.best, 1.2);
  EXPECT_EQ(plateau.bad_epochs, 0);
  EXPECT_EQ(plateau.rate, 0.5) << "which the weights have got used to";
}

}  // namespace
}  // namespace halfstep
