#include "compiler/doctor_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "runtime/executor.h"
#include "training/notes.h"
#include "training/random_inputs.h"
#include "training/run_setup.h"
#include "training/step_sums.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

constexpr int64_t kMostTries = 64;  // of one step

bool is_scaled(Tap::Kind kind) { return kind == Tap::backward || kind == Tap::gradient; }

// Adds counts whose bins begin at `first` to those that begin at `first_of_sum`.
void add(TapCounts& sum, int first_of_sum, const TapCounts& c, int first, int width) {
  sum.counted += c.counted, sum.zero += c.zero, sum.underflow += c.underflow, sum.subnormal += c.subnormal;
  sum.overflow += c.overflow, sum.infinite += c.infinite, sum.nan += c.nan;
  sum.lost_low += c.lost_low, sum.lost_master += c.lost_master;
  sum.exponents.resize(c.exponents.size(), 0);
  const int shift = static_cast<int>(std::floor(static_cast<double>(first - first_of_sum) / width));
  for (int i = 0; i < static_cast<int>(c.exponents.size()); ++i)
    sum.exponents[static_cast<size_t>(std::clamp(i + shift, 0, static_cast<int>(sum.exponents.size()) - 1))] +=
        c.exponents[static_cast<size_t>(i)];
}

class Runner {
 public:
  Runner(const Recipe& recipe, Executor& executor, const Batches& batches, const std::vector<Tap>& taps,
         const std::optional<TapOptions>& options)
      : recipe_(recipe),
        schedule_(batches.data ? schedule_of(recipe) : LearningRateSchedule()),
        executor_(executor),
        batches_(batches),
        taps_(taps),
        options_(options),
        bins_(tap_bins(options ? options->low : DType::f16)),
        program_(program_index(executor.model(), "train")) {
    if (batches.data) {
      feed_.emplace(batches.data->train, program(), feed_options(recipe, executor.model()));
      feed_->check(value_ranges(recipe, executor.model()));
      if (feed_->samples() < feed_->batch())
        throw Error(fmt::format("a step takes {} samples, the training set has {}: choose a smaller batch",
                                feed_->batch(), feed_->samples()));
    }
  }

  RunOfSteps run() {
    for (int64_t step = 0; step < batches_.steps && run_.stuck.empty(); ++step) make_step(step);
    return std::move(run_);
  }

 private:
  const Program& program() const { return executor_.model().programs[static_cast<size_t>(program_)]; }

  // Again at lower scales until it is applied, so that every run has seen the same batches after as many steps.
  void make_step(int64_t step) {
    double last_scale = 0;
    for (int64_t tries = 0;; ++tries) {
      submit(step);
      const std::optional<StepResult> result = executor_.poll(Wait::yes);
      require(result.has_value(), "a submitted step has a result");
      const NamedTensors& outputs = result->outputs;
      StepSums sums;
      sums.add(outputs, recipe_.batch);
      const double loss = sums.mean_loss(), scale = scalar_output(outputs, kUsedLossScale).value_or(1);
      const bool skipped = scalar_output(outputs, kOverflow).value_or(0) != 0;
      if (!std::isfinite(loss)) run_.stuck = fmt::format("the loss of step {} is not finite", step + 1);
      if (skipped && run_.stuck.empty() && (scale == last_scale || tries == kMostTries))
        run_.stuck =
            fmt::format("the gradients of step {} are not finite at loss scale {:g}, which stays", step + 1, scale);
      last_scale = scale;
      const bool applied = !skipped && run_.stuck.empty();
      if (skipped) ++run_.skipped;
      if (skipped && std::isfinite(loss)) see_limit(outputs, scale);
      if (!applied && run_.stuck.empty()) continue;
      if (applied) run_.losses.push_back(loss), run_.loss_scales.push_back(scale);
      if (options_) read(outputs, scale, step == 0 || run_.tensors.empty());
      return;
    }
  }

  void submit(int64_t step) {
    const std::vector<std::span<std::byte>> staging = executor_.begin_step(program_);
    const double rate = batches_.data ? rate_of(step) : recipe_.learning_rate;
    if (!feed_) {
      fill_random(executor_.model(), program(), rate, staging);
    } else {
      const int64_t batch = feed_->batch(), per_epoch = feed_->samples() / batch;
      if (const int64_t epoch = step / per_epoch; epoch != epoch_ || order_.empty())
        order_ = feed_->order(recipe_.shuffle ? SampleOrder::shuffled : SampleOrder::as_stored,
                              static_cast<uint64_t>(recipe_.seed), epoch_ = epoch);
      const auto first = static_cast<size_t>(step % per_epoch * batch);
      const std::vector<double> shares =
          rate_shares(executor_.model().notes, recipe_.learning_rate, step / per_epoch + 1);
      feed_->fill(std::span(order_).subspan(first, static_cast<size_t>(batch)),
                  {.learning_rate = rate,
                   .rate_shares = shares,
                   .iteration = step,
                   .seed = static_cast<uint64_t>(recipe_.seed)},
                  staging);
    }
    executor_.submit();
  }

  // The rate of the whole training's schedule.
  double rate_of(int64_t step) const {
    return learning_rate(schedule_, {feed_->samples() / feed_->batch(), recipe_.epochs}, step);
  }

  TapCounts counts(const NamedTensors& outputs, size_t tap) const {
    const std::span<const float> rows = outputs.at(kTaps).as<float>();
    return read_tap(bins_, rows.subspan(tap * kTapRow, kTapRow), taps_[tap].counted);
  }

  void see_limit(const NamedTensors& outputs, double scale) {
    if (!options_ || !outputs.contains(kTaps)) return;
    for (size_t i = 0; i < taps_.size(); ++i) {
      if (taps_[i].kind != Tap::backward && taps_[i].kind != Tap::gradient) continue;
      if (std::isfinite(counts(outputs, i).largest)) continue;
      run_.limits_scale = static_cast<int32_t>(i), run_.limited_scale = scale;
      return;
    }
  }

  void read(const NamedTensors& outputs, double scale, bool first) {
    if (taps_.empty()) return;
    if (first)
      for (const Tap& tap : taps_) run_.tensors.push_back({.tap = tap, .first = {}, .all = {}, .samples = {}});
    const int shift = std::ilogb(scale);
    for (size_t i = 0; i < taps_.size(); ++i) {
      TensorReading& reading = run_.tensors[i];
      const TapCounts now = counts(outputs, i);
      const bool scaled = is_scaled(reading.tap.kind);
      const double by = scaled ? scale : 1;
      const int begin = bins_.first - (scaled ? shift : 0);
      if (first) {
        reading.first = now, reading.first_exponent = begin, reading.scale = by;
        if (outputs.contains(kTapSamples)) {
          const std::span<const float> all = outputs.at(kTapSamples).as<float>();
          for (int64_t s = 0; s < reading.tap.samples; ++s)
            reading.samples.push_back(static_cast<float>(all[static_cast<size_t>(reading.tap.first_sample + s)] / by));
        }
      }
      add(reading.all, reading.first_exponent, now, begin, bins_.width);
      if (std::isfinite(now.largest)) reading.largest = std::max(reading.largest, now.largest / by);
      reading.all.largest = std::isnan(now.largest) ? now.largest : std::max(reading.all.largest, now.largest / by);
    }
  }

  const Recipe& recipe_;
  LearningRateSchedule schedule_;
  Executor& executor_;
  const Batches& batches_;
  const std::vector<Tap>& taps_;
  const std::optional<TapOptions>& options_;
  const TapBins bins_;
  int program_;
  std::optional<DataFeed> feed_;
  std::vector<int64_t> order_;
  int64_t epoch_ = -1;
  RunOfSteps run_;
};

}  // namespace

const TensorReading* RunOfSteps::find(Tap::Kind kind, const std::string& node) const {
  for (const TensorReading& t : tensors)
    if (t.tap.kind == kind && t.tap.node == node) return &t;
  return nullptr;
}

MeasuredStep::MeasuredStep(const Recipe& recipe, DeviceKind device, std::optional<TapOptions> taps)
    : recipe_(recipe), options_(taps) {
  recipe_.hysteresis = 1;  // a step is made again until it is applied, and an overflow that is spared changes nothing
  CompileOptions options;
  options.taps = taps;
  options.model_outputs = LossOptions::dropped;
  CompiledTraining compiled = compile_training(recipe_, device, options);
  model_ = std::move(compiled.model), report_ = std::move(compiled.report), taps_ = std::move(compiled.taps);
}

RunOfSteps MeasuredStep::run(const Batches& batches, std::optional<Disturbance> disturbed) const {
  CompiledModel model = model_;
  if (disturbed)
    if (const auto arena = model.state.find(kParameterArena); arena != model.state.end()) {
      std::mt19937_64 random(disturbed->seed);
      std::uniform_real_distribution<double> by(-disturbed->by, disturbed->by);
      for (float& weight : arena->second.as<float>()) weight = static_cast<float>(weight * (1 + by(random)));
    }
  const std::unique_ptr<Executor> executor = make_executor(std::move(model), executor_options(recipe_));
  return Runner(recipe_, *executor, batches, taps_, options_).run();
}

}  // namespace halfstep
