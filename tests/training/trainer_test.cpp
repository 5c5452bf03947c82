#include "training/trainer.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "tests/training/fake_executor.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// 22 samples of 3 elements: with batch 4, five batches an epoch and two samples left over.
Dataset samples(int64_t count = 22) {
  NamedArray x{"x", Tensor(TensorType{DType::f32, {count, 3}})}, y{"y", Tensor(TensorType{DType::i64, {count}})};
  for (int64_t i = 0; i < count * 3; ++i) x.values.set(i, static_cast<double>(i));
  for (int64_t i = 0; i < count; ++i) y.values.set(i, static_cast<double>(i % 3));
  return make_dataset({std::move(x), std::move(y)});
}

struct Recorder final : TrainObserver {
  std::vector<StepRow> steps;
  std::vector<EpochRow> epochs;
  std::vector<int64_t> begun, checkpoints;
  std::vector<Progress> progress;
  int finished_calls = 0;

  void epoch_begun(int64_t epoch, int64_t) override { begun.push_back(epoch); }
  void step_finished(const StepRow& row) override { steps.push_back(row); }
  void progressed(const Progress& p) override { progress.push_back(p); }
  void epoch_finished(const EpochRow& row) override { epochs.push_back(row); }
  void checkpoint_written(const std::filesystem::path&, int64_t step) override { checkpoints.push_back(step); }
  void finished(const TrainReport&) override { ++finished_calls; }
};

std::vector<double> losses(const Recorder& r) {
  std::vector<double> values;
  for (const StepRow& row : r.steps) values.push_back(row.loss);
  return values;
}

// Sample numbers of each batch of a program, read off the first element of each row.
std::vector<std::vector<int64_t>> batches(const FakeExecutor& executor, const std::string& program) {
  std::vector<std::vector<int64_t>> all;
  for (const Submission& s : executor.log) {
    if (s.program != program) continue;
    std::vector<int64_t> batch;
    for (int64_t row = 0; row < 4; ++row) batch.push_back(static_cast<int64_t>(s.inputs.at("x").at(row * 3)) / 3);
    all.push_back(batch);
  }
  return all;
}

TrainOptions options(int64_t epochs) {
  TrainOptions o;
  o.epochs = epochs;
  o.seed = 17;
  o.schedule = {.kind = "cosine", .learning_rate = 0.01, .warmup_steps = 3};
  return o;
}

TEST(Trainer, FeedsEachEpochInItsOrderAndReportsIt) {
  FakeExecutor executor;
  const Dataset data = samples();
  Recorder recorder;
  const TrainReport report = train(executor, data, nullptr, options(2), recorder);
  EXPECT_EQ(report.reason, StopReason::completed);
  EXPECT_EQ(report.steps, 10);
  EXPECT_EQ(report.counters.steps, 10);
  EXPECT_EQ(report.memory.state_bytes, 77);
  const auto fed = batches(executor, "train");
  ASSERT_EQ(fed.size(), 10u);
  for (size_t epoch = 0; epoch < 2; ++epoch) {
    const std::vector<int64_t> order = epoch_order(17, static_cast<int64_t>(epoch), 22);
    for (size_t step = 0; step < 5; ++step)
      for (size_t row = 0; row < 4; ++row) EXPECT_EQ(fed[epoch * 5 + step][row], order[step * 4 + row]);
  }
  for (int64_t i = 0; i < 10; ++i) {
    const NamedTensors& inputs = executor.log[static_cast<size_t>(i)].inputs;
    EXPECT_EQ(inputs.at(kStepIteration).at(0), i);
    EXPECT_EQ(inputs.at(kStepSeed).at(0), 17);
    const double rate = learning_rate(options(2).schedule, {.steps_per_epoch = 5, .epochs = 2}, i);
    EXPECT_EQ(inputs.at(kStepLearningRate).at(0), static_cast<float>(rate));
    EXPECT_EQ(recorder.steps[static_cast<size_t>(i)].learning_rate, rate);
    EXPECT_EQ(recorder.steps[static_cast<size_t>(i)].step, i + 1);
    EXPECT_EQ(recorder.steps[static_cast<size_t>(i)].epoch, i / 5 + 1);
  }
  EXPECT_THAT(recorder.begun, testing::ElementsAre(1, 2));
  ASSERT_EQ(recorder.epochs.size(), 2u);
  double loss = 0, correct = 0;
  for (size_t i = 5; i < 10; ++i) loss += recorder.steps[i].loss, correct += *recorder.steps[i].accuracy * 4;
  EXPECT_DOUBLE_EQ(recorder.epochs[1].loss, loss / 5);
  EXPECT_DOUBLE_EQ(*recorder.epochs[1].accuracy, correct / 20);
  EXPECT_EQ(recorder.epochs[1].loss_scale, 1024);
  EXPECT_EQ(recorder.epochs[1].step, 10);
  EXPECT_GT(recorder.epochs[1].samples_per_second, 0);
  EXPECT_EQ(recorder.finished_calls, 1);
}

TEST(Trainer, DoesNotWaitWhileStepsAreQueued) {
  FakeExecutor executor;
  executor.lag = 3;
  Recorder recorder;
  train(executor, samples(400), nullptr, options(1), recorder);
  EXPECT_EQ(executor.counters().steps, 100);
  EXPECT_EQ(executor.counters().result_waits, 3);  // only the end of the epoch drains
  EXPECT_EQ(recorder.steps.size(), 100u);
}

TEST(Trainer, ProgressComesAtMostTenTimesASecond) {
  FakeExecutor executor;
  Recorder recorder;
  const auto start = std::chrono::steady_clock::now();
  train(executor, samples(40000), nullptr, options(1), recorder);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_GE(recorder.progress.size(), 1u);
  EXPECT_LE(static_cast<double>(recorder.progress.size()), 1 + seconds * 10);
  EXPECT_EQ(recorder.progress[0].steps_per_epoch, 10000);
  EXPECT_EQ(recorder.progress[0].step_in_epoch, recorder.progress[0].last.step);
}

TEST(Trainer, AccumulatesBatchesIntoAStep) {
  FakeExecutor executor(fake_model(2));
  TrainOptions o = options(1);
  o.accumulation = 2;
  Recorder recorder;
  const TrainReport report = train(executor, samples(), nullptr, o, recorder);
  EXPECT_EQ(report.steps, 2);  // 22 samples, 8 a step
  std::vector<std::string> programs;
  std::vector<double> iterations, rates;
  for (const Submission& s : executor.log) {
    programs.push_back(s.program);
    iterations.push_back(s.inputs.at(kStepIteration).at(0));
    rates.push_back(s.inputs.at(kStepLearningRate).at(0));
  }
  EXPECT_THAT(programs, testing::ElementsAre("accumulate", "train", "accumulate", "train"));
  EXPECT_THAT(iterations, testing::ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(rates[0], rates[1]);
  EXPECT_NE(rates[1], rates[2]);
  ASSERT_EQ(recorder.steps.size(), 2u);
  FakeExecutor again;
  std::vector<double> batch_losses;
  for (const Submission& s : executor.log) {
    const auto staging = again.begin_step(program_index(again.model(), s.program));
    size_t i = 0;
    for (const Buffer& b : again.model().programs[static_cast<size_t>(program_index(again.model(), s.program))].buffers)
      if (b.kind == BufferKind::input) std::ranges::copy(s.inputs.at(b.name).data, staging[i++].begin());
    again.submit();
    batch_losses.push_back(again.poll(Wait::yes)->outputs.at(kLoss).at(0));
  }
  EXPECT_DOUBLE_EQ(recorder.steps[0].loss, (batch_losses[0] + batch_losses[1]) / 2);
}

TEST(Trainer, SkippedStepsAreCountedAndLeftOutOfTheLoss) {
  FakeExecutor executor;
  executor.overflows = [](int64_t step) { return step == 2 || step == 3; };
  Recorder recorder;
  train(executor, samples(), nullptr, options(1), recorder);
  EXPECT_TRUE(recorder.steps[1].skipped);
  EXPECT_FALSE(recorder.steps[3].skipped);
  EXPECT_EQ(recorder.epochs[0].skipped, 2);
  EXPECT_EQ(recorder.epochs[0].loss_scale, 256);
  EXPECT_DOUBLE_EQ(recorder.epochs[0].loss,
                   (recorder.steps[0].loss + recorder.steps[3].loss + recorder.steps[4].loss) / 3);
}

TEST(Trainer, StopsWhenTheScaleSitsAtItsFloor) {
  FakeExecutor executor;
  executor.overflows = [](int64_t step) { return step > 4; };  // from 1024, ten halvings reach the floor
  TrainOptions o = options(100);
  o.overflow_limit = 20;
  Recorder recorder;
  EXPECT_THAT([&] { train(executor, samples(), nullptr, o, recorder); },
              ThrowsMessage<Error>(AllOf(HasSubstr("training stopped at step 34"), HasSubstr("last 20 steps"),
                                         HasSubstr("at its floor 1: lower the learning rate"))));
  FakeExecutor sometimes;
  sometimes.overflows = [](int64_t step) { return step % 19 != 0; };
  EXPECT_NO_THROW(train(sometimes, samples(), nullptr, o, recorder));
}

TEST(Trainer, StopsAfterTooManySkippedStepsInARow) {
  FakeExecutor executor;
  executor.overflows = [](int64_t step) { return step > 4; };
  TrainOptions o = options(100);
  o.skip_limit = 6;
  Recorder recorder;
  EXPECT_THAT(
      [&] { train(executor, samples(), nullptr, o, recorder); },
      ThrowsMessage<HeadwayError>(AllOf(HasSubstr("training stopped at step 10: skip_limit 6 is reached"),
                                        HasSubstr("of the last 6 steps are not finite, the last with loss scale 32"),
                                        HasSubstr("`halfstep doctor` says which tensor goes wrong first"))));
  FakeExecutor sometimes;
  sometimes.overflows = [](int64_t step) { return step % 6 != 0; };
  EXPECT_NO_THROW(train(sometimes, samples(), nullptr, o, recorder));
}

TEST(Trainer, ARunBeginsWithTheGradScalerGivenAndAResumedOneWithItsOwn) {
  TrainOptions o = options(1);
  o.grad_scaler = GradScalers{{"", {.scale = 4096, .growth_tracker = 7}}};
  FakeExecutor executor;
  Recorder recorder;
  train(executor, samples(), nullptr, o, recorder);
  EXPECT_EQ(recorder.steps[0].loss_scale, 4096);
  EXPECT_EQ(executor.read_state(kLossScaleTracker).at(0), 7 + static_cast<double>(recorder.steps.size()));

  const TemporaryDirectory directory;
  o.checkpoints.directory = directory.path();
  FakeExecutor first;
  first.overflows = [](int64_t step) { return step == 1; };
  train(first, samples(), nullptr, o, recorder);
  o.epochs = 2, o.resume = directory.path();
  FakeExecutor second;
  Recorder resumed;
  train(second, samples(), nullptr, o, resumed);
  EXPECT_EQ(resumed.steps[0].loss_scale, 2048);
}

TEST(Trainer, TheStepThatStopsARunIsHandedOver) {
  FakeExecutor executor(fake_model(2));
  executor.overflows = [](int64_t step) { return step > 4; };
  TrainOptions o = options(100);
  o.overflow_limit = 20;
  o.accumulation = 2;
  Recorder recorder;
  try {
    train(executor, samples(), nullptr, o, recorder);
    FAIL() << "training goes on";
  } catch (const HeadwayError& e) {
    EXPECT_EQ(e.step().step, 34);
    EXPECT_EQ(e.step().iteration, 66);
    EXPECT_EQ(e.step().seed, 17u);
    const auto first = batches(executor, "accumulate").at(33), second = batches(executor, "train").at(33);
    std::vector<int64_t> both = first;
    both.insert(both.end(), second.begin(), second.end());
    EXPECT_EQ(e.step().samples, both);
  }
}

TEST(Trainer, ARunThatSkippedEveryStepHasNotTrained) {
  FakeExecutor executor;
  executor.overflows = [](int64_t) { return true; };
  Recorder recorder;
  TrainOptions o = options(1);
  EXPECT_THAT(
      [&] { train(executor, samples(), nullptr, o, recorder); },
      ThrowsMessage<HeadwayError>(HasSubstr("training has changed nothing: in each of its 5 steps, up to step 5,")));
  FakeExecutor once;
  once.overflows = [](int64_t step) { return step != 2; };
  EXPECT_NO_THROW(train(once, samples(), nullptr, o, recorder));
}

TEST(Trainer, StopsWhenTheLossStaysNonFinite) {
  FakeExecutor executor;
  executor.loss_override = std::numeric_limits<double>::quiet_NaN();
  Recorder recorder;
  EXPECT_THAT([&] { train(executor, samples(), nullptr, options(100), recorder); },
              ThrowsMessage<Error>(AllOf(HasSubstr("training stopped at step 50"), HasSubstr("not finite"))));
}

TEST(Trainer, EvaluationCountsOnlyRealRows) {
  FakeExecutor executor;
  const Evaluation e = evaluate(executor, samples(10), {});
  EXPECT_EQ(e.samples, 10);
  EXPECT_DOUBLE_EQ(e.loss, 3 * 4.5);          // the mean of 0, 3, ... 27
  EXPECT_DOUBLE_EQ(*e.accuracy, 7.0 / 10.0);  // labels 0 1 2 0 1 2 0 1 2 0: seven even ones
  EXPECT_THAT(batches(executor, "evaluate"),
              testing::ElementsAre(testing::ElementsAre(0, 1, 2, 3), testing::ElementsAre(4, 5, 6, 7),
                                   testing::ElementsAre(8, 9, 9, 9)));
}

TEST(Trainer, EachEpochIsEvaluated) {
  FakeExecutor executor;
  const Dataset test = samples(10);
  Recorder recorder;
  train(executor, samples(), &test, options(2), recorder);
  ASSERT_TRUE(recorder.epochs[1].test);
  EXPECT_DOUBLE_EQ(recorder.epochs[1].test->loss, 13.5);
  EXPECT_EQ(batches(executor, "evaluate").size(), 6u);
}

// One run without a break against a run that is stopped at `stop` and goes on in a new executor.
void expect_same_after_resume(int64_t stop, int64_t accumulation, int64_t checkpoint_step) {
  SCOPED_TRACE("stopped at step " + std::to_string(stop));
  TemporaryDirectory directory;
  const Dataset data = samples(), test = samples(10);
  TrainOptions o = options(3);
  o.accumulation = accumulation;
  const auto overflows = [](int64_t step) { return step == 3; };
  FakeExecutor whole(fake_model(accumulation)), first(fake_model(accumulation)), second(fake_model(accumulation));
  Recorder whole_run, first_run, second_run;
  whole.overflows = first.overflows = overflows;
  train(whole, data, &test, o, whole_run);

  o.checkpoints = {.directory = directory.path(), .every_steps = 1, .keep = 0};
  o.max_steps = stop;
  train(first, data, &test, o, first_run);
  o.max_steps = 0;
  o.seed = 99;  // the checkpoint's counts
  o.resume = directory.path() / ("step-00000000" + std::to_string(checkpoint_step));
  second.overflows = [=](int64_t step) { return overflows(step + checkpoint_step); };
  train(second, data, &test, o, second_run);

  std::vector<Submission> expected, found;
  std::ranges::copy_if(whole.log, std::back_inserter(expected), [](auto& s) { return s.program != "evaluate"; });
  std::ranges::copy_if(second.log, std::back_inserter(found), [](auto& s) { return s.program != "evaluate"; });
  expected.erase(expected.begin(), expected.begin() + checkpoint_step * accumulation);
  EXPECT_EQ(found, expected);
  EXPECT_EQ(second.state(), whole.state());
  EXPECT_EQ(losses(second_run), [&] {
    std::vector<double> all = losses(whole_run);
    all.erase(all.begin(), all.begin() + checkpoint_step);
    return all;
  }());
  ASSERT_FALSE(second_run.epochs.empty());
  const size_t skipped_epochs = whole_run.epochs.size() - second_run.epochs.size();
  for (size_t i = 0; i < second_run.epochs.size(); ++i) {
    const EpochRow &a = whole_run.epochs[i + skipped_epochs], &b = second_run.epochs[i];
    EXPECT_EQ(a.epoch, b.epoch);
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.accuracy, b.accuracy);
    EXPECT_EQ(a.loss_scale, b.loss_scale);
    EXPECT_EQ(a.skipped, b.skipped);
  }
}

TEST(Trainer, ResumeIsBitExact) {
  expect_same_after_resume(7, 1, 7);  // in the middle of an epoch
  expect_same_after_resume(2, 1, 2);  // before the overflow
  expect_same_after_resume(5, 1, 5);  // between two epochs
  expect_same_after_resume(9, 1, 4);  // an older checkpoint of a longer run
  expect_same_after_resume(3, 2, 3);  // with accumulation
}

TEST(Trainer, ASignalSavesACheckpointAndTheRunGoesOnFromThere) {
  const Dataset data = samples(), test = samples(10);
  FakeExecutor whole;
  Recorder whole_run;
  train(whole, data, &test, options(2), whole_run);
  const size_t submissions = whole.log.size();  // two epochs of five steps and three batches of evaluation
  ASSERT_EQ(submissions, 16u);
  for (size_t at = 1; at <= submissions; ++at) {
    SCOPED_TRACE("signal during submission " + std::to_string(at));
    TemporaryDirectory directory;
    TrainOptions o = options(2);
    o.checkpoints.directory = directory.path();
    FakeExecutor first, second;
    Recorder first_run, second_run;
    first.before_submit = [&](FakeExecutor& e) {
      if (e.log.size() == at) raise(at % 2 == 0 ? SIGINT : SIGTERM);
    };
    TrainReport report;
    {
      SignalGuard guard;
      o.signals = &guard;
      report = train(first, data, &test, o, first_run);
      o.signals = nullptr;
    }
    EXPECT_EQ(report.reason, at == submissions ? StopReason::completed : StopReason::interrupted);
    EXPECT_EQ(first.log.size(), at) << "it stops at the next step";
    EXPECT_TRUE(std::filesystem::exists(report.checkpoint / "manifest.json"));
    o.resume = directory.path();
    train(second, data, &test, o, second_run);
    EXPECT_EQ(second.state(), whole.state());
    std::vector<double> both = losses(first_run);
    for (const double loss : losses(second_run)) both.push_back(loss);
    EXPECT_EQ(both, losses(whole_run));
    EXPECT_EQ(first_run.epochs.size() + second_run.epochs.size(), 2u) << "every epoch has one row";
    for (const EpochRow& row : second_run.epochs) EXPECT_TRUE(row.test && !row.test->interrupted);
  }
}

TEST(Trainer, CheckpointsComeEverySoManyStepsAndAfterEachEpoch) {
  TemporaryDirectory directory;
  TrainOptions o = options(2);
  o.checkpoints = {.directory = directory.path() / "a" / "b", .every_steps = 3, .keep = 2};
  FakeExecutor executor;
  Recorder recorder;
  const TrainReport report = train(executor, samples(), nullptr, o, recorder);
  EXPECT_THAT(recorder.checkpoints, testing::ElementsAre(3, 5, 6, 9, 10));
  EXPECT_EQ(list_checkpoints(o.checkpoints.directory).size(), 2u);
  EXPECT_EQ(report.checkpoint, o.checkpoints.directory / "step-000000010");
  const TrainState state = read_checkpoint(report.checkpoint).train;
  EXPECT_EQ(state.epoch, 2);
  EXPECT_EQ(state.position, 0);
  o.resume = report.checkpoint;  // nothing is left to do
  EXPECT_EQ(train(executor, samples(), nullptr, o, recorder).steps, 10);
  EXPECT_EQ(executor.log.size(), 10u);
}

TEST(Trainer, TheStepLimitEndsWithAnEvaluationAndACheckpoint) {
  TemporaryDirectory directory;
  TrainOptions o = options(9);
  o.max_steps = 7;
  o.checkpoints.directory = directory.path();
  FakeExecutor executor;
  const Dataset test = samples(10);
  Recorder recorder;
  const TrainReport report = train(executor, samples(), &test, o, recorder);
  EXPECT_EQ(report.steps, 7);
  ASSERT_EQ(report.epochs.size(), 2u);
  EXPECT_EQ(report.epochs[1].step, 7);
  EXPECT_TRUE(report.epochs[1].test);
  EXPECT_EQ(read_checkpoint(report.checkpoint).train.position, 8);
}

TEST(Trainer, WhatCannotBeTrainedIsSaidBeforeTheFirstStep) {
  FakeExecutor executor;
  Recorder recorder;
  TemporaryDirectory directory;
  write_file_atomically(directory.path() / "file", "x");
  const auto expect_error = [&](const Dataset& data, const TrainOptions& o, const std::string& message) {
    EXPECT_THAT([&] { train(executor, data, nullptr, o, recorder); }, ThrowsMessage<Error>(HasSubstr(message)));
    EXPECT_TRUE(executor.log.empty());
  };
  expect_error(samples(3), options(1),
               "one step takes 4 samples (batch 4, accumulation 1), but the training set has 3");
  TrainOptions o = options(1);
  o.ranges.labels = "y";
  o.ranges.classes = 2;
  expect_error(samples(), o, "data array 'y': sample 2 has label 2, expected 0 to 1");
  o = options(1);
  o.checkpoints.directory = directory.path() / "file";
  expect_error(samples(), o, "checkpoint directory");
  o = options(1);
  o.resume = directory.path();
  expect_error(samples(), o, "holds no checkpoint");
  o = options(1);
  o.accumulation = 0;
  expect_error(samples(), o, "accumulation: 0 batches");
  o = options(1);
  o.schedule.learning_rate = -1;
  expect_error(samples(), o, "learning rate: -1");
  CompiledModel model = fake_model(2);
  model.programs.erase(model.programs.begin(), model.programs.begin() + 2);  // leaves "train"
  FakeExecutor train_only(model);
  o = options(1);
  o.accumulation = 2;
  EXPECT_THAT([&] { train(train_only, samples(), nullptr, o, recorder); },
              ThrowsMessage<Error>(HasSubstr("has no program 'accumulate'")));
  EXPECT_THAT([&] { evaluate(train_only, samples(), {}); }, ThrowsMessage<Error>(HasSubstr("no program 'evaluate'")));
}

TEST(Trainer, AnotherAccumulationThanWasCompiledIsRefused) {
  FakeExecutor executor(fake_model(2));
  Recorder recorder;
  TrainOptions o = options(1);
  EXPECT_THAT([&] { train(executor, samples(), nullptr, o, recorder); },
              ThrowsMessage<Error>(HasSubstr("compiled for 2 batches, 1 are asked for")));
  o.accumulation = 2;
  EXPECT_NO_THROW(train(executor, samples(), nullptr, o, recorder));
}

TEST(Trainer, ResumingWithOtherDataIsRefused) {
  TemporaryDirectory directory;
  TrainOptions o = options(1);
  o.checkpoints.directory = directory.path();
  FakeExecutor executor;
  Recorder recorder;
  train(executor, samples(), nullptr, o, recorder);
  o.resume = directory.path();
  EXPECT_THAT([&] { train(executor, samples(30), nullptr, o, recorder); },
              ThrowsMessage<Error>(HasSubstr("it was trained on 22 samples, the training set has 30")));
}

}  // namespace
}  // namespace halfstep
