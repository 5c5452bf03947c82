#include "training/predict.h"

#include <algorithm>
#include <deque>

#include "base/error.h"
#include "training/notes.h"

namespace halfstep {
namespace {

// Zeros stand for the labels that the loss added to the model's inputs.
void put_labels(Dataset& dataset, const CompiledModel& model, const Program& program) {
  const std::set<std::string> labels = label_inputs(model.notes);
  const auto is_label = [&](const Buffer& b) {
    return b.kind == BufferKind::input && b.name.is(Role::model) && labels.contains(b.name.text);
  };
  if (std::ranges::none_of(program.buffers, is_label)) return;
  std::erase_if(dataset.arrays, [&](const NamedArray& array) { return labels.contains(array.name); });
  if (dataset.arrays.empty() && !dataset.images && !dataset.texts)
    throw Error("the data has labels alone: give the model's inputs too");
  const int64_t samples = dataset.size();
  for (const Buffer& input : program.buffers) {
    TensorType type = input.type;
    if (!is_label(input) || type.shape.empty()) continue;
    type.shape.front() = samples;
    dataset.arrays.push_back({input.name.text, Tensor(type)});
  }
}

FileTensors empty_outputs(const Program& program, int64_t batch, int64_t samples) {
  FileTensors outputs;
  Problems problems;
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::output || !buffer.name.is(Role::model)) continue;
    TensorType type = buffer.type;
    if (is_low(type.dtype)) type.dtype = DType::f32;
    if (type.shape.empty() || type.shape.front() != batch)
      problems.add("output '" + buffer.name.text + "' is " + to_string(type) + ": a row for each of the " +
                   std::to_string(batch) + " samples of a batch expected");
    else
      type.shape.front() = samples;
    outputs.emplace(buffer.name.text, Tensor(type));
  }
  problems.throw_if_any();
  if (outputs.empty())
    throw Error("the step was compiled without the model's outputs: compile it again with keep_outputs true");
  return outputs;
}

}  // namespace

std::optional<FileTensors> predict(Executor& executor, Dataset dataset, const EvaluateOptions& options) {
  if (dataset.tokens) throw Error("predictions are made of arrays: give the token ids as NAME=FILE.npy");
  const int index = program_index(executor.model(), "evaluate");
  const Program& program = executor.model().programs[static_cast<size_t>(index)];
  put_labels(dataset, executor.model(), program);
  const DataFeed feed(dataset, program, options.feed);
  ValueRanges inputs = options.ranges;
  inputs.labels.clear(), inputs.labels_of.clear();
  feed.check(inputs);
  const std::vector<int64_t> order = feed.order(SampleOrder::as_stored, options.seed, 0);
  feed.announce({order});
  FileTensors outputs = empty_outputs(program, feed.batch(), static_cast<int64_t>(order.size()));

  std::deque<int64_t> rows_in_flight;
  size_t done = 0;  // samples
  const auto collect = [&](Wait wait) {
    while (!rows_in_flight.empty()) {
      const std::optional<StepResult> result = executor.poll(wait);
      if (!result) return;
      const auto rows = static_cast<size_t>(rows_in_flight.front());
      for (auto& [name, all] : outputs) {
        const Tensor& computed = result->outputs.at(name);
        const Tensor batch = computed.type.dtype == all.type.dtype ? computed : computed.cast(all.type.dtype);
        const size_t row_bytes = all.data.size() / order.size();
        std::copy_n(batch.data.begin(), rows * row_bytes,
                    all.data.begin() + static_cast<std::ptrdiff_t>(done * row_bytes));
      }
      done += rows;
      rows_in_flight.pop_front();
    }
  };
  int64_t batches = 0;
  for (std::span<const int64_t> rest(order); !rest.empty();) {
    const std::span<const int64_t> rows = rest.first(std::min(rest.size(), static_cast<size_t>(feed.batch())));
    feed.fill(rows, {.iteration = batches++, .seed = options.seed}, executor.begin_step(index));
    executor.submit();
    rows_in_flight.push_back(static_cast<int64_t>(rows.size()));
    collect(Wait::no);
    rest = rest.subspan(rows.size());
    if (options.signals != nullptr && options.signals->received() != 0) return std::nullopt;
  }
  collect(Wait::yes);
  return outputs;
}

}  // namespace halfstep
