#include <algorithm>
#include <chrono>
#include <deque>
#include <numeric>

#include "base/error.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

// Sums the rows of finished batches.
class RowSums {
 public:
  explicit RowSums(Executor& executor) : executor_(executor) {}

  void submitted(int64_t ticket, int64_t rows) { in_flight_.push_back({ticket, rows}); }

  void collect(Wait wait) {
    while (!in_flight_.empty()) {
      const std::optional<StepResult> result = executor_.poll(wait);
      if (!result) {
        require(wait == Wait::no, "a submitted batch has a result");
        return;
      }
      require(result->ticket == in_flight_.front().ticket, "results come in order of submission");
      add(*result, in_flight_.front().rows);
      in_flight_.pop_front();
    }
  }

  // Labels that are all ignored have a loss of 0.
  Evaluation result() const {
    Evaluation evaluation;
    evaluation.samples = samples_;
    evaluation.losses = loss_rows(executor_.model().notes.losses, each_);
    const bool several = !evaluation.losses.empty();
    evaluation.loss = several ? total_loss(evaluation.losses) : all_.mean();
    evaluation.accuracy = several ? first_accuracy(evaluation.losses) : all_.accuracy();
    return evaluation;
  }

 private:
  struct InFlight {
    int64_t ticket;
    int64_t rows;
  };

  static double sum_rows(const Tensor& values, int64_t rows) {
    require(values.type.dtype == DType::f32 && values.type.element_count() >= rows, "one f32 per row");
    const std::span<const float> valid = values.as<float>().first(static_cast<size_t>(rows));
    return std::accumulate(valid.begin(), valid.end(), 0.0);
  }

  void add(const StepResult& result, int64_t rows) {
    if (!result.outputs.contains(kRowLoss))
      throw Error("program 'evaluate' has no output 'row_loss': compile the model again");
    add(all_, result.outputs, rows, [](const OwnName& measure) -> Name { return measure; });
    for (size_t i = 0; result.outputs.contains(of_loss(kRowLoss, i)); ++i) {
      if (each_.size() == i) each_.emplace_back();
      add(each_[i], result.outputs, rows, [i](const OwnName& measure) { return of_loss(measure, i); });
    }
    samples_ += rows;
  }

  static void add(LossSums& sums, const NamedTensors& outputs, int64_t rows, const auto& named) {
    sums.loss += sum_rows(outputs.at(named(kRowLoss)), rows);
    if (const auto correct = outputs.find(named(kRowCorrect)); correct != outputs.end())
      sums.correct = sums.correct.value_or(0) + sum_rows(correct->second, rows);
    const auto counted = outputs.find(named(kRowCounted));
    const double labels = counted == outputs.end() ? static_cast<double>(rows) : sum_rows(counted->second, rows);
    sums.counted += labels, sums.judged += labels;
  }

  Executor& executor_;
  std::deque<InFlight> in_flight_;
  int64_t samples_ = 0;
  LossSums all_;
  std::vector<LossSums> each_;  // of several losses
};

}  // namespace

int program_index(const CompiledModel& model, const std::string& program) {
  const auto found = std::ranges::find(model.programs, program, &Program::name);
  if (found == model.programs.end())
    throw Error("the compiled model has no program '" + program + "': compile it again for this use");
  return static_cast<int>(found - model.programs.begin());
}

Evaluation evaluate(Executor& executor, const Dataset& dataset, const EvaluateOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const int program = program_index(executor.model(), "evaluate");
  const DataFeed feed(dataset, executor.model().programs[static_cast<size_t>(program)], options.feed);
  feed.check(options.ranges);
  const std::vector<int64_t> order = feed.order(SampleOrder::as_stored, options.seed, 0);
  feed.announce({order});
  RowSums sums(executor);
  bool interrupted = false;
  int64_t batches = 0;
  for (std::span<const int64_t> rest(order); !rest.empty() && !interrupted;) {
    const std::span<const int64_t> rows = rest.first(std::min(rest.size(), static_cast<size_t>(feed.batch())));
    feed.fill(rows, {.iteration = batches++, .seed = options.seed}, executor.begin_step(program));
    sums.submitted(executor.submit(), static_cast<int64_t>(rows.size()));
    sums.collect(Wait::no);
    rest = rest.subspan(rows.size());
    interrupted = options.signals != nullptr && options.signals->received() != 0 && !rest.empty();
  }
  sums.collect(Wait::yes);
  Evaluation evaluation = sums.result();
  evaluation.interrupted = interrupted;
  evaluation.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (const auto loss = token_loss(executor.model().notes.losses, evaluation.losses, evaluation.loss))
    evaluation.tokens =
        feed.measure(*loss, static_cast<double>(evaluation.samples) / std::max(evaluation.seconds, 1e-9));
  return evaluation;
}

}  // namespace halfstep
