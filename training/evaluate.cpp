#include <algorithm>
#include <chrono>
#include <deque>

#include "base/error.h"
#include "training/row_sums.h"
#include "training/trainer.h"

namespace halfstep {
namespace {

// Adds up finished batches in the order in which they were submitted.
class Batches {
 public:
  Batches(Executor& executor, RowSums& sums) : executor_(executor), sums_(sums) {}

  void submitted(int64_t ticket, int64_t rows, Measures::Labels labels) {
    in_flight_.push_back({ticket, rows, std::move(labels)});
  }

  void collect(Wait wait) {
    while (!in_flight_.empty()) {
      const std::optional<StepResult> result = executor_.poll(wait);
      if (!result) {
        require(wait == Wait::no, "a submitted batch has a result");
        return;
      }
      require(result->ticket == in_flight_.front().ticket, "results come in order of submission");
      sums_.add(result->outputs, in_flight_.front().labels, in_flight_.front().rows);
      in_flight_.pop_front();
    }
  }

 private:
  struct InFlight {
    int64_t ticket;
    int64_t rows;
    Measures::Labels labels;
  };

  Executor& executor_;
  RowSums& sums_;
  std::deque<InFlight> in_flight_;
};

// Classes have the names that the data's labels had, unless others are given.
MeasureOptions with_names(MeasureOptions options, const Dataset& dataset, const StepNotes& notes) {
  const std::vector<std::string>& learned = dataset.facts.classes;
  if (options.class_names.empty() && notes.judged.size() == 1 && std::ssize(learned) == notes.classes.value_or(2))
    options.class_names = learned;
  return options;
}

}  // namespace

int program_index(const CompiledModel& model, const std::string& program) {
  const auto found = std::ranges::find(model.programs, program, &Program::name);
  if (found == model.programs.end())
    throw Error("the compiled model has no program '" + program + "': compile it again for this use");
  return static_cast<int>(found - model.programs.begin());
}

Evaluation evaluate(Executor& executor, const Dataset& dataset, const EvaluateOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const int index = program_index(executor.model(), "evaluate");
  const Program& program = executor.model().programs[static_cast<size_t>(index)];
  const StepNotes& notes = executor.model().notes;
  const DataFeed feed(dataset, program, options.feed);
  feed.check(options.ranges);
  const std::vector<int64_t> order = feed.order(SampleOrder::as_stored, options.seed, 0);
  feed.announce({order});
  RowSums sums(notes, Measures(with_names(options.measures, dataset, notes), program, notes,
                               static_cast<int64_t>(order.size())));
  Batches running(executor, sums);
  bool interrupted = false;
  int64_t batches = 0;
  for (std::span<const int64_t> rest(order); !rest.empty() && !interrupted;) {
    const std::span<const int64_t> rows = rest.first(std::min(rest.size(), static_cast<size_t>(feed.batch())));
    const std::vector<std::span<std::byte>> staging = executor.begin_step(index);
    feed.fill(rows, {.iteration = batches++, .seed = options.seed}, staging);
    Measures::Labels labels = sums.measures().labels(staging);
    running.submitted(executor.submit(), static_cast<int64_t>(rows.size()), std::move(labels));
    running.collect(Wait::no);
    rest = rest.subspan(rows.size());
    interrupted = options.signals != nullptr && options.signals->received() != 0 && !rest.empty();
  }
  running.collect(Wait::yes);
  Evaluation evaluation = sums.evaluation();
  evaluation.interrupted = interrupted;
  evaluation.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (const auto loss = token_loss(notes.losses, evaluation.losses, evaluation.loss))
    evaluation.tokens =
        feed.measure(*loss, static_cast<double>(evaluation.samples) / std::max(evaluation.seconds, 1e-9));
  // What stands beside the loss anyway is not told twice.
  std::erase_if(evaluation.measures.values, [&](const MeasureValue& measure) {
    return (measure.name == "accuracy" && evaluation.accuracy) || (measure.name == "perplexity" && evaluation.tokens);
  });
  return evaluation;
}

}  // namespace halfstep
