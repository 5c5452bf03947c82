#include "training/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <limits>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "training/checkpoint_state.h"
#include "training/notes.h"
#include "training/step_sums.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kProgressInterval(100);

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Sees when a run makes no headway: every step overflows at the floor of the loss scale, or the loss stays non-finite.
class HeadwayWatch {
 public:
  explicit HeadwayWatch(const TrainOptions& options)
      : min_scale_(options.min_scale),
        limit_(options.overflow_limit),
        skip_limit_(options.skip_limit),
        resumed_(!options.resume.empty()) {}

  // What is wrong; nullopt: nothing.
  std::optional<std::string> see(const StepRow& row) {
    const bool at_floor = row.loss_scale && *row.loss_scale <= min_scale_;
    overflows_ = row.skipped && at_floor ? overflows_ + 1 : 0;
    skips_ = row.skipped ? skips_ + 1 : 0;
    bad_losses_ = !row.skipped && !std::isfinite(row.loss) ? bad_losses_ + 1 : 0;
    ++steps_, skipped_ += row.skipped, sound_ += !row.skipped && std::isfinite(row.loss);
    if (overflows_ >= limit_)
      return fmt::format("training stopped at step {}: {} {} are not finite, with the loss scale at its floor {:g}: {}",
                         row.step, std::isfinite(row.loss) ? "the gradients" : "the loss and the gradients",
                         of_the_last(overflows_), min_scale_, remedy());
    if (skip_limit_ > 0 && skips_ >= skip_limit_)
      return fmt::format(
          "training stopped at step {}: skip_limit {} is reached, {} {} are not finite, the last with loss scale {:g}: "
          "{}",
          row.step, skip_limit_, std::isfinite(row.loss) ? "the gradients" : "the loss and the gradients",
          of_the_last(skips_), row.loss_scale.value_or(1),
          remedy("a smaller initial_scale needs fewer, or model, weights or data are at fault"));
    if (bad_losses_ >= (row.loss_scale ? limit_ : 1))
      return fmt::format("training stopped at step {}: the loss {} is not finite: {}", row.step,
                         of_the_last(bad_losses_), remedy());
    return std::nullopt;
  }
  // At the end of a run. A resumed one may have nothing but the steps that a grown scale costs; its weights are
  // trained.
  std::optional<std::string> see_end(const StepRow& last) const {
    if (resumed_ || steps_ == 0 || skipped_ < steps_) return std::nullopt;
    return fmt::format(
        "training has changed nothing: in each of its {} steps, up to step {}, gradients were not finite and the "
        "update "
        "was left out",
        steps_, last.step);
  }

 private:
  std::string remedy(const char* without_a_sound_step =
                         "no step of this run was finite: its model, weights or data are at fault") const {
    return std::string(sound_ > 0 ? "lower the learning rate or clip the gradients, and go on from a checkpoint"
                                  : without_a_sound_step) +
           "; `halfstep doctor` says which tensor goes wrong first";
  }
  static std::string of_the_last(int64_t steps) {
    return steps == 1 ? "of this step" : fmt::format("of the last {} steps", steps);
  }

  double min_scale_;
  int64_t limit_, skip_limit_;
  bool resumed_;
  int64_t overflows_ = 0, skips_ = 0;
  int64_t bad_losses_ = 0;
  int64_t steps_ = 0, skipped_ = 0, sound_ = 0;  // of this run
};

// A program with the inputs it is fed.
struct Stage {
  Stage(const CompiledModel& model, const std::string& name, const Dataset& dataset, const FeedOptions& options)
      : program(program_index(model, name)), feed(dataset, model.programs[static_cast<size_t>(program)], options) {
    const std::vector<Buffer>& buffers = model.programs[static_cast<size_t>(program)].buffers;
    if (std::ranges::none_of(buffers, [](const Buffer& b) { return b.kind == BufferKind::output && b.name == kLoss; }))
      throw Error("program '" + name + "' has no output 'loss': compile the model again");
  }

  int program;
  DataFeed feed;
};

class Training {
 public:
  Training(Executor& executor, const Dataset& train_set, const Dataset* test_set, const TrainOptions& options,
           TrainObserver& observer)
      : executor_(executor),
        train_set_(train_set),
        test_set_(test_set),
        options_(options),
        observer_(observer),
        train_(executor.model(), "train", train_set, options.feed),
        headway_(options),
        plateau_(options.plateau),
        best_(options.best) {
    check(options.schedule);
    rate_shares(executor.model().notes, options.schedule.learning_rate, 1);
    train_.feed.check(options.ranges);
    if (test_set != nullptr) {
      const int evaluate = program_index(executor.model(), "evaluate");
      const Program& program = executor.model().programs[static_cast<size_t>(evaluate)];
      const DataFeed feed(*test_set, program, options.feed);
      feed.check(options.ranges);
      // What is wrong with them should not show after an epoch.
      held_out_ = Measures(options.measures, program, executor.model().notes, feed.samples()).names();
    }
    check_accumulation();
    if (options.accumulation > 1) accumulate_.emplace(executor.model(), "accumulate", train_set, options.feed);
    if (accumulate_) accumulate_->feed.share_images(train_.feed);
    if (accumulate_ && accumulate_->feed.batch() != train_.feed.batch())
      throw Error("programs 'train' and 'accumulate' have different batches: compile the model again");
    step_samples_ = checked_mul(train_.feed.batch(), options.accumulation, "samples of a step");
    state_.seed = options.seed;
    state_.samples = train_.feed.samples();
    state_.data = train_set.facts;
    if (step_samples_ > state_.samples)
      throw Error(
          fmt::format("one step takes {} samples (batch {}, accumulation {}), but the training set has {}: "
                      "choose a smaller batch",
                      step_samples_, train_.feed.batch(), options.accumulation, state_.samples));
    if (const fs::path& directory = options.checkpoints.directory; !directory.empty()) {
      prepare_checkpoint_directory(directory);
      recover_checkpoints(directory);
    }
    const std::string usual = test_set != nullptr ? "test_loss" : "loss";
    if (plateau_.measure.empty()) plateau_.measure = usual;
    if (best_.measure.empty() && best_.patience > 0) best_.measure = usual;
    check_rules(train_set);
    if (!options.resume.empty())
      resume();
    else if (options.grad_scaler)
      write_grad_scalers(executor, *options.grad_scaler, "grad_scaler");
    state_.best = of_rule(state_.best, best_);
    if (options.schedule.kind == "plateau") state_.plateau = of_rule(state_.plateau, plateau_);
  }

  TrainReport run() {
    const Clock::time_point start = Clock::now();
    observer_.run_begun(state_.step);
    if (has_waited_enough()) report_.reason = StopReason::no_improvement;
    while (report_.reason == StopReason::completed && state_.epoch < options_.epochs && !at_step_limit()) run_epoch();
    if (report_.reason != StopReason::interrupted)
      if (const std::optional<std::string> problem = headway_.see_end(last_row_))
        throw stuck(*problem, last_submitted_);
    report_.steps = state_.step;
    if (const BestState& best = state_.best; best.value && !best_.measure.empty())
      report_.best = {.measure = best_.measure,
                      .value = *best.value,
                      .epoch = best.epoch,
                      .step = best.step,
                      .checkpoint = checkpoint_of_best()};
    report_.seconds = seconds_since(start);
    report_.counters = executor_.counters();
    report_.memory = executor_.memory();
    observer_.finished(report_);
    return std::move(report_);
  }

 private:
  struct InFlight {
    int64_t ticket = 0;
    bool ends_step = false;
    StepRow row;           // what the host knows of it
    int64_t epoch = 0;     // whose order holds its samples,
    int64_t position = 0;  // which end before this one
    int64_t iteration = 0;
  };

  // It lies in another run's directory where this one goes on from that, and has found no better one.
  fs::path checkpoint_of_best() const {
    fs::path before = options_.resume.lexically_normal();
    if (!before.empty() && !before.has_filename()) before = before.parent_path();
    const fs::path beside = before.has_parent_path() ? before.parent_path() : fs::path(".");
    for (const fs::path& directory : {options_.checkpoints.directory, before, before.empty() ? before : beside})
      if (const fs::path found = directory.empty() ? fs::path() : checkpoint_of_step(directory, state_.best.step);
          !found.empty())
        return found;
    return {};
  }

  bool has_waited_enough() const { return best_.patience > 0 && state_.best.waited >= best_.patience; }

  bool has_output(const char* program, const Name& name) const {
    const std::vector<Buffer>& buffers =
        executor_.model().programs[static_cast<size_t>(program_index(executor_.model(), program))].buffers;
    return std::ranges::any_of(buffers,
                               [&](const Buffer& b) { return b.kind == BufferKind::output && b.name == name; });
  }

  EpochMeasures measures_of_epochs(const Dataset& train_set) const {
    EpochMeasures run{.asked = options_.measures.names, .held_out = held_out_, .is_evaluated = test_set_ != nullptr};
    run.has_classes = has_output("train", kCorrect);
    run.has_tokens = train_set.tokens && notes().empty();
    for (size_t i = 0; i < notes().size(); ++i) {
      run.has_classes |= has_output("train", of_loss(kCorrect, i));
      run.has_tokens |= train_set.tokens && notes()[i].classes > 0 && notes()[i].labels == kTokenLabels;
      if (test_set_ != nullptr && has_output("evaluate", of_loss(kRowCorrect, i)))
        run.held_out.push_back(notes()[i].name + ".accuracy");
    }
    run.has_text = run.has_tokens && train_set.tokens->file->is_text();
    return run;
  }

  // Measures that this run will not have.
  void check_rules(const Dataset& train_set) const {
    const EpochMeasures run = measures_of_epochs(train_set);
    Problems problems;
    const auto check = [&](const char* key, const std::string& measure) {
      if (!measure.empty()) try {
          check_measure(key, measure, run);
        } catch (const Error& e) {
          problems.add(e.what());
        }
    };
    check("best", best_.measure);
    if (options_.schedule.kind == "plateau") check("plateau_measure", plateau_.measure);
    problems.throw_if_any();
  }

  // The divisor of the gradients is part of the programs.
  void check_accumulation() const {
    if (options_.accumulation < 1)
      throw Error(fmt::format("accumulation: {} batches a step, expected at least 1", options_.accumulation));
    const int64_t compiled = executor_.model().notes.accumulation;
    if (compiled != options_.accumulation)
      throw Error(fmt::format("accumulation: the step was compiled for {} batches, {} are asked for: compile it again",
                              compiled, options_.accumulation));
  }

  void resume() {
    const TrainState loaded = load_checkpoint(options_.resume, executor_);
    if (loaded.samples == 0)
      throw Error(fmt::format(
          "cannot resume from '{}': it was written through the API in the midst of an epoch, whose order of "
          "samples only that program knows: go on there (load_checkpoint), or let it call set_epochs before "
          "it saves, at the end of an epoch",
          options_.resume.string()));
    if (loaded.samples != state_.samples)
      throw Error(
          fmt::format("cannot resume from '{}': it was trained on {} samples, the training set has {}: give the "
                      "same data",
                      options_.resume.string(), loaded.samples, state_.samples));
    state_ = loaded;
  }

  bool at_step_limit() const { return options_.max_steps > 0 && state_.step >= options_.max_steps; }
  bool epoch_ended() const { return state_.position + step_samples_ > state_.samples; }
  bool signalled() const { return options_.signals != nullptr && options_.signals->received() != 0; }
  int64_t steps_per_epoch() const { return state_.samples / step_samples_; }

  std::vector<int64_t> samples_of(int64_t epoch) const { return train_.feed.order(options_.order, state_.seed, epoch); }

  void run_epoch() {
    observer_.epoch_begun(state_.epoch + 1, steps_per_epoch());
    const std::vector<int64_t> order = samples_of(state_.epoch);
    train_.feed.announce({{order.begin() + state_.position, order.end()}, state_.seed, state_.epoch, state_.position});
    epoch_start_ = Clock::now();
    waited_before_ = train_.feed.waited().value_or(0);
    epoch_samples_ = 0;
    while (!epoch_ended() && !at_step_limit() && !signalled()) {
      submit_step(order);
      collect(Wait::no);
      report_progress();
      if (const int64_t every = options_.checkpoints.every_steps;
          every > 0 && state_.step % every == 0 && !epoch_ended() && !at_step_limit()) {
        collect(Wait::yes);
        save();
      }
    }
    collect(Wait::yes);
    finish_epoch();
  }

  // An epoch cut short by a signal, also in its evaluation, has no row: its state stays open and resuming completes it.
  void finish_epoch() {
    EpochRow row = epoch_row();
    if (test_set_ != nullptr && !signalled()) {
      const auto run = [&] {
        row.test =
            evaluate(executor_, *test_set_, {options_.feed, {}, state_.seed, options_.signals, options_.measures});
      };
      options_.evaluated == WeightsKind::average ? with_average(executor_, run) : run();
    }
    const bool cut_short = signalled() && (!row.test || row.test->interrupted);
    if (!cut_short) {
      observer_.epoch_finished(row);
      if (options_.gradients && state_.position > 0) observer_.gradients_read(row, gradients_of_last_batch());
      report_.epochs.push_back(row);
      if (epoch_ended()) {
        try {
          follow_rules(row);
        } catch (const Error&) {
          save();  // a run that goes on from it ends this epoch by another measure
          throw;
        }
        ++state_.epoch;
        state_.position = 0;
        state_.totals = {};
      }
    }
    save();
    if (has_waited_enough()) report_.reason = StopReason::no_improvement;
    if (signalled() && (cut_short || state_.epoch < options_.epochs)) report_.reason = StopReason::interrupted;
  }

  // As its step took it, but by the weights after that.
  FileTensors gradients_of_last_batch() {
    const Stage stage(executor_.model(), std::string(kGradientsProgram), train_set_, options_.feed);
    const std::vector<int64_t> order = samples_of(state_.epoch);
    const int64_t begin = state_.position - stage.feed.batch();
    const std::vector<int64_t> batch(order.begin() + begin, order.begin() + state_.position);
    stage.feed.announce({batch, state_.seed, state_.epoch, begin});
    stage.feed.fill(batch, {.iteration = state_.iteration - 1, .seed = state_.seed, .use = StepInputs::trained_on},
                    executor_.begin_step(stage.program));
    executor_.submit();
    require(executor_.poll(Wait::yes).has_value(), "a submitted batch has a result");
    FileTensors gradients = read_gradients(executor_);
    // The next step's sum begins there.
    if (options_.accumulation > 1)
      executor_.write_state(kGradientArena, Tensor(executor_.read_state(kGradientArena).type));
    return gradients;
  }

  void follow_rules(const EpochRow& row) {
    const auto measured = [&](const char* key, const std::string& measure) {
      const std::optional<double> value = measure_of(row, measure);
      if (!value) throw Error(fmt::format("{}: epoch {} has no {}: take another measure", key, row.epoch, measure));
      return *value;
    };
    const bool has_plateau = options_.schedule.kind == "plateau", has_best = !best_.measure.empty();
    const double of_plateau = has_plateau ? measured("plateau_measure", plateau_.measure) : 0,
                 of_best = has_best ? measured("best", best_.measure) : 0;
    if (has_plateau) state_.plateau = after_epoch(state_.plateau, plateau_, options_.schedule, of_plateau);
    if (has_best) state_.best = after_epoch(state_.best, best_, of_best, row.epoch, row.step);
  }

  // The schedule's step: without those that were skipped long enough ago.
  int64_t schedule_step() {
    if (options_.skipped == TrainOptions::advance_the_schedule) return state_.step;
    if (!in_flight_.empty() && in_flight_.front().row.step + kSkipDelay <= state_.step + 1) collect(Wait::yes);
    SkippedSteps& s = state_.skipped;
    while (!s.later.empty() && s.later.front() + kSkipDelay <= state_.step) s.later.erase(s.later.begin()), ++s.counted;
    return state_.step - s.counted;
  }

  void submit_step(std::span<const int64_t> order) {
    const TrainingLength length{steps_per_epoch(), options_.epochs};
    LearningRateSchedule schedule = options_.schedule;
    schedule.reduced = state_.plateau.rate;
    const double rate = learning_rate(schedule, length, schedule_step());
    const std::vector<double> shares =
        rate_shares(executor_.model().notes, options_.schedule.learning_rate, state_.epoch + 1);
    const int64_t batch = train_.feed.batch();
    for (int64_t i = 0; i < options_.accumulation; ++i) {
      const bool ends_step = i + 1 == options_.accumulation;
      const Stage& stage = ends_step ? train_ : *accumulate_;
      const std::vector<std::span<std::byte>> staging = executor_.begin_step(stage.program);
      stage.feed.fill(order.subspan(static_cast<size_t>(state_.position), static_cast<size_t>(batch)),
                      {.learning_rate = rate,
                       .rate_shares = shares,
                       .iteration = state_.iteration,
                       .seed = state_.seed,
                       .use = StepInputs::trained_on},
                      staging);
      InFlight submitted{.ticket = executor_.submit(),
                         .ends_step = ends_step,
                         .row = {},
                         .epoch = state_.epoch,
                         .position = state_.position + batch,
                         .iteration = state_.iteration};
      submitted.row.step = state_.step + 1;
      submitted.row.epoch = state_.epoch + 1;
      submitted.row.learning_rate = rate;
      in_flight_.push_back(std::move(submitted));
      state_.position += batch;
      ++state_.iteration;
    }
    ++state_.step;
  }

  void collect(Wait wait) {
    while (!in_flight_.empty()) {
      const std::optional<StepResult> result = executor_.poll(wait);
      if (!result) {
        require(wait == Wait::no, "a submitted step has a result");
        return;
      }
      require(result->ticket == in_flight_.front().ticket, "results come in order of submission");
      take(result->outputs, in_flight_.front());
      in_flight_.pop_front();
    }
  }

  void take(const NamedTensors& outputs, const InFlight& submitted) {
    sums_.add(outputs, train_.feed.batch());
    if (!submitted.ends_step) return;
    const StepSums sums = std::exchange(sums_, {});
    StepRow row = submitted.row;
    row.loss_scale = scalar_output(outputs, kUsedLossScale);
    row.skipped = scalar_output(outputs, kOverflow).value_or(0) != 0;
    EpochTotals& totals = state_.totals;
    row.loss = sums.mean_loss();
    totals.counted += sums.judged;
    if (sums.correct) {
      row.accuracy = sums.accuracy();
      totals.correct = totals.correct.value_or(0) + *sums.correct;
    }
    row.losses = loss_rows(notes(), sums.each);
    for (size_t i = 0; i < row.losses.size(); ++i) {
      row.losses[i].loss_scale = scalar_output(outputs, of_loss(kUsedLossScale, i));
      row.losses[i].overflowed = scalar_output(outputs, of_loss(kOverflow, i)).value_or(0) != 0;
    }
    if (!row.accuracy) row.accuracy = first_accuracy(row.losses);
    epoch_samples_ += step_samples_;
    row.samples_per_second = static_cast<double>(epoch_samples_) / std::max(seconds_since(epoch_start_), 1e-9);
    if (const auto loss = token_loss(notes(), row.losses, row.loss))
      row.tokens = train_.feed.measure(*loss, row.samples_per_second);
    ++totals.steps;
    totals.samples += step_samples_;
    totals.losses.resize(sums.each.size());
    if (row.skipped) {
      if (options_.skipped == TrainOptions::hold_the_schedule) state_.skipped.later.push_back(row.step - 1);
      ++totals.skipped;
      for (size_t i = 0; i < sums.each.size(); ++i) totals.losses[i].add_accuracy(sums.each[i]);
    } else {
      totals.loss += sums.loss;
      totals.loss_labels += sums.counted;
      for (size_t i = 0; i < sums.each.size(); ++i) totals.losses[i] += sums.each[i];
    }
    totals.loss_scale = row.loss_scale;
    last_row_ = row;
    observer_.step_finished(row);
    last_submitted_ = submitted;
    if (const std::optional<std::string> problem = headway_.see(row)) throw stuck(*problem, submitted);
  }

  HeadwayError stuck(const std::string& problem, const InFlight& last) const {
    const std::vector<int64_t> order = samples_of(last.epoch);
    const auto end = order.begin() + last.position;
    return {problem,
            {.step = last.row.step,
             .iteration = last.iteration + 1 - options_.accumulation,
             .seed = state_.seed,
             .loss_scale = last_row_.loss_scale,
             .samples = {end - step_samples_, end},
             .checkpoint = report_.checkpoint}};
  }

  const std::vector<LossNote>& notes() const { return executor_.model().notes.losses; }

  EpochRow epoch_row() const {
    const EpochTotals& totals = state_.totals;
    EpochRow row;
    row.epoch = state_.epoch + 1;
    row.step = state_.step;
    row.loss = totals.loss_labels > 0 || totals.skipped == totals.steps ? totals.loss / totals.loss_labels : 0;
    if (totals.correct && totals.counted > 0) row.accuracy = *totals.correct / totals.counted;
    row.losses = loss_rows(notes(), totals.losses);
    for (size_t i = 0; i < row.losses.size() && i < last_row_.losses.size(); ++i)
      row.losses[i].loss_scale = last_row_.losses[i].loss_scale;
    if (totals.skipped == totals.steps)
      for (LossRow& loss : row.losses) loss.loss = std::numeric_limits<double>::quiet_NaN();
    if (!row.losses.empty()) row.loss = total_loss(row.losses), row.accuracy = first_accuracy(row.losses);
    row.loss_scale = totals.loss_scale;
    row.skipped = totals.skipped;
    row.seconds = seconds_since(epoch_start_);
    row.samples_per_second = static_cast<double>(epoch_samples_) / std::max(row.seconds, 1e-9);
    row.data_wait = data_wait(row.seconds);
    if (const auto loss = token_loss(notes(), row.losses, row.loss))
      row.tokens = train_.feed.measure(*loss, row.samples_per_second);
    return row;
  }

  // Its share of the epoch's `seconds` so far.
  std::optional<double> data_wait(double seconds) const {
    const std::optional<double> waited = train_.feed.waited();
    return waited ? std::optional((*waited - waited_before_) / std::max(seconds, 1e-9)) : std::nullopt;
  }

  void report_progress() {
    const Clock::time_point now = Clock::now();
    if (now - last_progress_ < kProgressInterval || last_row_.step == 0) return;
    last_progress_ = now;
    observer_.progressed({last_row_, state_.totals.steps, steps_per_epoch(), state_.totals.skipped,
                          data_wait(seconds_since(epoch_start_))});
  }

  void save() {
    if (options_.checkpoints.directory.empty()) return;
    const Clock::time_point start = Clock::now();
    report_.checkpoint = save_checkpoint(options_.checkpoints.directory, executor_, state_, options_.checkpoints.keep);
    epoch_start_ += Clock::now() - start;  // rates count training alone
    observer_.checkpoint_written(report_.checkpoint, state_.step);
  }

  Executor& executor_;
  const Dataset& train_set_;
  const Dataset* test_set_;
  const TrainOptions& options_;
  TrainObserver& observer_;
  Stage train_;
  std::optional<Stage> accumulate_;
  HeadwayWatch headway_;
  PlateauRule plateau_;
  BestRule best_;
  std::vector<std::string> held_out_;  // measures that evaluations tell
  int64_t step_samples_ = 0;
  TrainState state_;
  TrainReport report_;
  std::deque<InFlight> in_flight_;
  StepSums sums_;  // of the step's batches whose results are here
  StepRow last_row_;
  InFlight last_submitted_;  // of the same step
  Clock::time_point epoch_start_;
  double waited_before_ = 0;   // seconds, for images of the epochs before
  int64_t epoch_samples_ = 0;  // in this run
  Clock::time_point last_progress_;
};

}  // namespace

TrainReport train(Executor& executor, const Dataset& train_set, const Dataset* test_set, const TrainOptions& options,
                  TrainObserver& observer) {
  return Training(executor, train_set, test_set, options, observer).run();
}

}  // namespace halfstep
