// What a run does with skipped steps, epochs' measures and averaged weights, on an executor without kernels.
#include <gmock/gmock.h>

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "tests/training/fake_executor.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

Dataset samples(int64_t count = 20) {
  NamedArray x{"x", Tensor(TensorType{DType::f32, {count, 3}})}, y{"y", Tensor(TensorType{DType::i64, {count}})};
  for (int64_t i = 0; i < count * 3; ++i) x.values.set(i, static_cast<double>(i % 11));
  for (int64_t i = 0; i < count; ++i) y.values.set(i, static_cast<double>(i % 3));
  return make_dataset({std::move(x), std::move(y)});
}

struct Rates final : TrainObserver {
  std::vector<double> rates;
  std::vector<EpochRow> epochs;
  void step_finished(const StepRow& row) override { rates.push_back(row.learning_rate); }
  void epoch_finished(const EpochRow& row) override { epochs.push_back(row); }
};

TrainOptions options(int64_t epochs) {
  TrainOptions o;
  o.epochs = epochs;
  o.schedule = {.kind = "linear", .learning_rate = 1};
  return o;
}

TEST(SkippedSteps, HoldTheScheduleEightStepsLaterWhateverTheLag) {
  const std::set<int64_t> skipped{1, 2, 7, 19};
  const auto rates = [&](int64_t lag, TrainOptions::Skipped rule) {
    FakeExecutor executor;
    executor.lag = lag, executor.overflows = [&](int64_t step) { return skipped.contains(step); };
    Rates recorded;
    TrainOptions o = options(6);
    o.skipped = rule;
    train(executor, samples(), nullptr, o, recorded);
    return recorded.rates;
  };
  const std::vector<double> held = rates(0, TrainOptions::hold_the_schedule);
  ASSERT_EQ(held.size(), 30u);
  for (int64_t step = 0; step < 30; ++step) {
    int64_t before = 0;
    for (const int64_t number : skipped) before += number - 1 + kSkipDelay <= step;
    EXPECT_EQ(held[static_cast<size_t>(step)],
              learning_rate(options(6).schedule, {.steps_per_epoch = 5, .epochs = 6}, step - before))
        << step;
  }
  for (const int64_t lag : {1, 3}) EXPECT_EQ(rates(lag, TrainOptions::hold_the_schedule), held);
  const std::vector<double> counted = rates(2, TrainOptions::advance_the_schedule);
  EXPECT_EQ(counted.back(), learning_rate(options(6).schedule, {.steps_per_epoch = 5, .epochs = 6}, 29));
  EXPECT_NE(counted, held);
}

TEST(SkippedSteps, AreKeptByCheckpoints) {
  TemporaryDirectory directory;
  const auto run = [&](const char* name, int64_t first_end) {
    FakeExecutor executor;
    Rates recorded;
    int64_t done = 0;  // train steps of the run, whichever process makes them
    executor.overflows = [&](int64_t) { return ++done % 6 == 4; };
    TrainOptions o = options(6);
    o.checkpoints.directory = directory.path() / name;
    o.max_steps = first_end;
    train(executor, samples(), nullptr, o, recorded);
    if (first_end == 0) return recorded.rates;
    FakeExecutor next;
    next.overflows = executor.overflows;
    o.max_steps = 0, o.resume = o.checkpoints.directory;
    train(next, samples(), nullptr, o, recorded);
    return recorded.rates;
  };
  const std::vector<double> whole = run("whole", 0);
  for (const int64_t end : {4, 5, 13}) EXPECT_EQ(run(std::to_string(end).c_str(), end), whole) << end;
}

TEST(BestCheckpoint, StaysBesideTheNewestAndIsTold) {
  TemporaryDirectory directory;
  FakeExecutor executor;
  Rates recorded;
  TrainOptions o = options(6);
  o.checkpoints = {.directory = directory.path() / "run", .keep = 1};
  o.best.measure = "loss";
  const TrainReport report = train(executor, samples(), nullptr, o, recorded);
  const auto best = std::ranges::min_element(recorded.epochs, {}, &EpochRow::loss);
  ASSERT_TRUE(report.best);
  EXPECT_EQ(report.best->epoch, best->epoch);
  EXPECT_EQ(report.best->value, best->loss);
  EXPECT_EQ(report.best->step, best->step);
  std::set<int64_t> kept;
  for (const CheckpointEntry& entry : list_checkpoints(directory.path() / "run")) kept.insert(entry.step);
  EXPECT_EQ(kept, (std::set<int64_t>{best->step, 30}));
  EXPECT_EQ(report.best->checkpoint, checkpoint_of_step(directory.path() / "run", best->step));
  EXPECT_EQ(read_checkpoint(report.best->checkpoint).train.step, best->step);
}

TEST(Patience, EndsTrainingAndARunThatGoesOnStaysEnded) {
  TemporaryDirectory directory;
  FakeExecutor executor;
  executor.loss_override = 0.5;  // never better
  Rates recorded;
  TrainOptions o = options(10);
  o.checkpoints.directory = directory.path() / "run";
  o.best.patience = 2;
  const TrainReport report = train(executor, samples(), nullptr, o, recorded);
  EXPECT_EQ(report.reason, StopReason::no_improvement);
  EXPECT_EQ(report.epochs.size(), 3u);
  o.resume = o.checkpoints.directory;
  FakeExecutor next;
  const TrainReport again = train(next, samples(), nullptr, o, recorded);
  EXPECT_EQ(again.reason, StopReason::no_improvement);
  EXPECT_EQ(again.epochs.size(), 0u);
}

TEST(Plateau, ReducesTheRateOfTheNextEpochAndIsKeptByCheckpoints) {
  TemporaryDirectory directory;
  const auto run = [&](const char* name, int64_t first_end) {
    Rates recorded;
    TrainOptions o = options(5);
    o.schedule = {.kind = "plateau", .learning_rate = 1, .gamma = 0.5, .final_rate = 0.2};
    o.plateau.patience = 1;
    o.checkpoints.directory = directory.path() / name;
    o.max_steps = first_end;
    for (int part = 0; part < (first_end > 0 ? 2 : 1); ++part) {
      FakeExecutor executor;
      executor.loss_override = 0.5;
      train(executor, samples(), nullptr, o, recorded);
      o.max_steps = 0, o.resume = o.checkpoints.directory;
    }
    return recorded.rates;
  };
  const std::vector<double> whole = run("whole", 0);
  for (size_t step = 0; step < 25; ++step) EXPECT_EQ(whole[step], step < 15 ? 1 : 0.5) << step;
  for (const int64_t end : {7, 10, 15}) EXPECT_EQ(run(std::to_string(end).c_str(), end), whole) << end;
}

TEST(Measures, ThatARunWillNotHaveAreRefusedBeforeItBegins) {
  FakeExecutor executor;
  Rates recorded;
  TrainOptions o = options(1);
  const auto refuse = [&](const char* measure, const char* part) {
    o.best.measure = measure;
    EXPECT_THAT([&] { train(executor, samples(), nullptr, o, recorded); }, ThrowsMessage<Error>(HasSubstr(part)));
  };
  refuse("test_loss", "best: test_loss is of held-out data, and there is none: name test_data, or take loss");
  refuse("perplexity", "best: perplexity is of tokens, and the data are none");
  refuse("acc", "best: no measure 'acc'");
  o.measures.names = {"perplexity"};
  refuse("perplexity", "best: perplexity is of tokens, and the data are none");
  o.measures.names = {};
  EXPECT_TRUE(recorded.rates.empty());
}

// Where no label of an epoch counts, say.
TEST(Measures, ThatAnEpochHasNotStopARunAfterItsCheckpoint) {
  TemporaryDirectory directory;
  FakeExecutor executor;
  executor.labels_that_count = 0;
  Rates recorded;
  TrainOptions o = options(2);
  o.checkpoints.directory = directory.path() / "run";
  o.best.measure = "accuracy";
  EXPECT_THAT([&] { train(executor, samples(), nullptr, o, recorded); },
              ThrowsMessage<Error>(HasSubstr("best: epoch 1 has no accuracy: take another measure")));
  FakeExecutor next;
  o.best.measure = "loss", o.resume = o.checkpoints.directory;
  const TrainReport report = train(next, samples(), nullptr, o, recorded);
  EXPECT_EQ(report.steps, 10);
  EXPECT_EQ(report.epochs.front().epoch, 1);
}

TEST(Groups, WithRatesOfTheirOwnNeedOneToBeSharesOf) {
  CompiledModel model = fake_model();
  model.notes.rates = {{.learning_rate = 0.5}};
  FakeExecutor executor(model);
  Rates recorded;
  TrainOptions o = options(1);
  o.schedule.learning_rate = 0;
  EXPECT_THAT([&] { train(executor, samples(), nullptr, o, recorded); },
              ThrowsMessage<Error>(HasSubstr("learning_rate: 0 beside a group's own of 0.5")));
  EXPECT_TRUE(recorded.rates.empty());
}

// The model of fake_model with a running mean of its weights.
CompiledModel averaged_model() {
  CompiledModel model = fake_model();
  for (Program& program : model.programs) {
    program.buffers.push_back({kAverageArena, BufferKind::state, {DType::f32, {32}}});
    program.buffers.push_back({kAverageCount, BufferKind::state, {DType::f32, {}}});
  }
  model.arenas.push_back(kAverageArena);
  return model;
}

TEST(Average, StandsInTheWeightsPlaceAndLeavesThemAsTheyWere) {
  FakeExecutor executor(averaged_model());
  const NamedTensors before = executor.state();
  int runs = 0;
  with_average(executor, [&] {
    ++runs;
    EXPECT_EQ(executor.state(), before) << "no step has made it";
  });
  executor.state()[kAverageCount] = Tensor::scalar(DType::f32, 3);
  executor.state()[kAverageArena].set(2, 0.75);
  const NamedTensors averaged = executor.state();
  with_average(executor, [&] {
    ++runs;
    EXPECT_EQ(executor.state()[kParameterArena], averaged.at(kAverageArena));
    EXPECT_EQ(executor.state()[Name(Role::slot, "parameters.f16")], averaged.at(kAverageArena).cast(DType::f16));
  });
  EXPECT_EQ(executor.state(), averaged);
  EXPECT_THROW(with_average(executor, [] { throw Error("stopped"); }), Error);
  EXPECT_EQ(executor.state(), averaged);
  EXPECT_EQ(runs, 2);
  const ModelState state = read_model_state(executor);
  EXPECT_TRUE(has_average(state));
  EXPECT_EQ(weights_of(state, WeightsKind::last), state.weights);
  EXPECT_EQ(weights_of(state, WeightsKind::average).at("conv.weight"), state.slots.at("ema/conv.weight"));
  EXPECT_EQ(weights_of(state, WeightsKind::average).at("bn.running_mean"), state.weights.at("bn.running_mean"));
}

TEST(Average, ARunMayBeginItOrLeaveItWhereItGoesOn) {
  FakeExecutor with(averaged_model()), without;
  with.state()[kAverageCount] = Tensor::scalar(DType::f32, 3);
  write_model_state(without, read_model_state(with), "checkpoint");
  write_model_state(with, read_model_state(without), "checkpoint");
  EXPECT_EQ(with.read_state(kAverageCount).at(0), 0) << "the next step begins it";
  ModelState broken = read_model_state(with);
  broken.slots.erase("ema/conv.weight");
  EXPECT_THAT([&] { write_model_state(with, broken, "checkpoint"); },
              ThrowsMessage<Error>(HasSubstr("'ema/conv.weight'")));
}

}  // namespace
}  // namespace halfstep
