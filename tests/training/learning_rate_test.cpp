#include "training/learning_rate.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"

namespace halfstep {
namespace {

constexpr TrainingLength kLength{.steps_per_epoch = 10, .epochs = 4};

TEST(LearningRateSchedule, ConstantStaysAfterItsWarmUp) {
  const LearningRateSchedule s{.learning_rate = 0.5, .warmup_steps = 4};
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 0), 0.125);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 2), 0.375);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 3), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 4), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 39), 0.5);
}

TEST(LearningRateSchedule, StepFallsAfterEveryFewEpochs) {
  const LearningRateSchedule s{.kind = "step", .learning_rate = 1, .step_epochs = 2, .gamma = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 0), 1);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 19), 1);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 20), 0.1);
  EXPECT_NEAR(learning_rate(s, kLength, 40), 0.01, 1e-15);
}

TEST(LearningRateSchedule, LinearFallsInEqualParts) {
  const LearningRateSchedule s{.kind = "linear", .learning_rate = 1, .warmup_steps = 8, .final_rate = 0.2};
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 7), 1);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 8), 1);
  EXPECT_NEAR(learning_rate(s, kLength, 16), 0.8, 1e-12);
  EXPECT_NEAR(learning_rate(s, kLength, 40), 0.2, 1e-12);
  EXPECT_NEAR(learning_rate(s, kLength, 1000), 0.2, 1e-12);
}

TEST(LearningRateSchedule, DecayCanEndEarlierThanTheEpochs) {
  for (const char* kind : {"linear", "cosine"}) {
    const LearningRateSchedule s{
        .kind = kind, .learning_rate = 1, .warmup_steps = 2, .final_rate = 0.2, .decay_steps = 12};
    EXPECT_NEAR(learning_rate(s, kLength, 7), 0.6, 1e-12);
    EXPECT_NEAR(learning_rate(s, kLength, 12), 0.2, 1e-12);
    EXPECT_NEAR(learning_rate(s, kLength, 30), 0.2, 1e-12);
  }
}

TEST(LearningRateSchedule, CosineFallsFromThePeakToTheFinalRate) {
  const LearningRateSchedule s{.kind = "cosine", .learning_rate = 1, .warmup_steps = 8, .final_rate = 0.2};
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 0), 0.125);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 7), 1);
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 8), 1);
  EXPECT_NEAR(learning_rate(s, kLength, 24), 0.6, 1e-12);  // half way
  EXPECT_NEAR(learning_rate(s, kLength, 16), 0.2 + 0.4 * (1 + std::sqrt(0.5)), 1e-12);
  EXPECT_NEAR(learning_rate(s, kLength, 40), 0.2, 1e-12);
  EXPECT_NEAR(learning_rate(s, kLength, 1000), 0.2, 1e-12);
}

TEST(LearningRateSchedule, WarmUpLongerThanTheTrainingIsAllRise) {
  const LearningRateSchedule s{.kind = "cosine", .learning_rate = 1, .warmup_steps = 100};
  EXPECT_DOUBLE_EQ(learning_rate(s, kLength, 39), 0.4);
}

TEST(LearningRateSchedule, ValuesThatMakeNoSenseAreListed) {
  EXPECT_NO_THROW(check(LearningRateSchedule{}));
  EXPECT_THAT([] { check({.kind = "step", .learning_rate = NAN, .step_epochs = 0}); },
              testing::ThrowsMessage<Error>(testing::AllOf(testing::HasSubstr("learning rate: nan"),
                                                           testing::HasSubstr("every 0 epochs, expected at least 1"))));
  EXPECT_THROW(check({.learning_rate = -1}), Error);
  EXPECT_THROW(check({.warmup_steps = -1}), Error);
  EXPECT_THROW(check({.kind = "cosine", .final_rate = INFINITY}), Error);
}

}  // namespace
}  // namespace halfstep
