#include "training/predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <numeric>
#include <set>

#include "base/error.h"
#include "training/measure_tally.h"
#include "training/notes.h"

namespace halfstep {
namespace {

struct Interrupted {};

std::set<std::string> all_label_names(const StepNotes& notes) {
  std::set<std::string> names = label_inputs(notes);
  for (const JudgedOutput& judged : notes.judged) names.insert(judged.labels);
  names.insert({"labels", "targets"});
  return names;
}

bool is_input(const Program& program, const std::string& name) {
  return std::ranges::any_of(program.buffers,
                             [&](const Buffer& b) { return b.kind == BufferKind::input && b.name == Name(name); });
}

// The labels that the loss added to the model's inputs hold zeros, and those of the data are left out.
void leave_labels_out(Dataset& dataset, FeedOptions& feed, const StepNotes& notes, const Program& program) {
  const std::set<std::string> added = label_inputs(notes);
  for (const std::string& name : added)
    if (is_input(program, name)) feed.zeros.insert(name);
  std::erase_if(dataset.arrays, [&](const NamedArray& array) {
    return all_label_names(notes).contains(array.name) &&
           (added.contains(array.name) || !is_input(program, array.name));
  });
  if (dataset.arrays.empty() && !dataset.images && !dataset.texts)
    throw Error("the data has labels alone: give the model's inputs too");
}

bool is_of_labels(OutputMeaning meaning) {
  return meaning == OutputMeaning::label_logits || meaning == OutputMeaning::label_probabilities;
}

// One output on its way to the file.
class Column {
 public:
  // Its arrays in the file.
  Column(const Buffer& buffer, const JudgedOutput* judged, const PredictOptions& options)
      : name_(buffer.name), options_(options) {
    TensorType row = buffer.type;
    if (is_low(row.dtype)) row.dtype = DType::f32;
    row.shape.erase(row.shape.begin());
    type_ = row.dtype;
    row_elements_ = row.element_count();
    const std::string& text = name_.text;
    if (judged != nullptr) judged_ = *judged, shape_ = output_shape(*judged, buffer.type);
    const bool has_classes = judged != nullptr && judged->meaning != OutputMeaning::values;
    const auto& names = options.class_names;
    if (has_classes && !names.empty() && static_cast<int64_t>(names.size()) != shape_.classes)
      throw Error(fmt::format("class_names: {} names are given, output '{}' has {} classes", names.size(), text,
                              shape_.classes));
    probabilities_ = has_classes && options.scores == PredictOptions::probabilities;
    if (has_classes && options.top > 0) {
      if (shape_.positions() != 1)
        throw Error(fmt::format("top: output '{}' is {}, with {} choices of a class in a sample: leave it out", text,
                                to_string(buffer.type), shape_.positions()));
      if (shape_.classes < 2) throw Error(fmt::format("top: output '{}' has one class: take its probabilities", text));
      top_ = std::min(options.top, shape_.classes);
      arrays_.push_back({text + "_class", {DType::i64, {top_}}, {}, names});
      arrays_.push_back({text + (probabilities_ ? "_probability" : "_score"), {DType::f32, {top_}}, {}, {}});
      for (RowArray& array : arrays_)
        for (int64_t k = 1; k <= top_; ++k) array.elements.push_back(std::to_string(k));
      return;
    }
    if (probabilities_) row.dtype = type_ = DType::f32;
    arrays_.push_back({text, row, {}, {}});
    if (has_classes && shape_.positions() == 1 && shape_.classes == row_elements_) arrays_[0].elements = names;
  }

  const std::vector<RowArray>& arrays() const { return arrays_; }

  // The first `rows` of a batch, as the arrays of the file.
  void take(const NamedTensors& outputs, int64_t rows, std::vector<std::span<const std::byte>>& to) {
    const Tensor& computed = outputs.at(name_);
    if (computed.type.dtype != type_ || probabilities_ || top_ > 0) {
      cast_ = computed.cast(top_ > 0 ? DType::f32 : type_);
    }
    const bool as_is = computed.type.dtype == type_ && !probabilities_ && top_ == 0;
    if (probabilities_) to_probabilities(cast_.as<float>());
    if (top_ > 0) return choose_top(rows, to);
    const Tensor& values = as_is ? computed : cast_;
    to.push_back(std::span(values.data).first(static_cast<size_t>(rows * row_elements_ * size_of(type_))));
  }

 private:
  void to_probabilities(std::span<float> scores) const {
    if (judged_.meaning == OutputMeaning::probabilities || judged_.meaning == OutputMeaning::label_probabilities)
      return;
    if (judged_.meaning == OutputMeaning::log_probabilities)
      for (float& score : scores) score = std::exp(score);
    else if (is_of_labels(judged_.meaning))
      for (float& score : scores) score = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(score))));
    else
      softmax(scores);
  }

  void softmax(std::span<float> scores) const {
    const int64_t groups = shape_.batch * shape_.outer;
    std::vector<double> powers(static_cast<size_t>(shape_.classes));
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t inner = 0; inner < shape_.inner; ++inner) {
        float* const first = scores.data() + group * shape_.classes * shape_.inner + inner;
        double top = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int64_t c = 0; c < shape_.classes; ++c) top = std::max(top, static_cast<double>(first[c * shape_.inner]));
        for (int64_t c = 0; c < shape_.classes; ++c)
          sum += powers[static_cast<size_t>(c)] = std::exp(static_cast<double>(first[c * shape_.inner]) - top);
        for (int64_t c = 0; c < shape_.classes; ++c)
          first[c * shape_.inner] = static_cast<float>(powers[static_cast<size_t>(c)] / sum);
      }
  }

  // Of equal scores the lower class first; NaN last.
  void choose_top(int64_t rows, std::vector<std::span<const std::byte>>& to) {
    classes_.clear(), scores_.clear();
    std::vector<int64_t> order(static_cast<size_t>(shape_.classes));
    const std::span<const float> all = std::as_const(cast_).as<float>();
    for (int64_t row = 0; row < rows; ++row) {
      const std::span<const float> scores =
          all.subspan(static_cast<size_t>(row * shape_.classes), static_cast<size_t>(shape_.classes));
      const auto value = [&](int64_t c) {
        const float score = scores[static_cast<size_t>(c)];
        return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
      };
      std::iota(order.begin(), order.end(), int64_t{0});
      std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(top_), [&](int64_t a, int64_t b) {
        return value(a) != value(b) ? value(a) > value(b) : a < b;
      });
      for (int64_t k = 0; k < top_; ++k) {
        classes_.push_back(order[static_cast<size_t>(k)]);
        scores_.push_back(scores[static_cast<size_t>(classes_.back())]);
      }
    }
    to.push_back(std::as_bytes(std::span(classes_)));
    to.push_back(std::as_bytes(std::span(scores_)));
  }

  Name name_;
  const PredictOptions& options_;
  DType type_ = DType::f32;
  int64_t row_elements_ = 0, top_ = 0;
  JudgedOutput judged_;
  JudgedShape shape_;
  bool probabilities_ = false;
  std::vector<RowArray> arrays_;
  Tensor cast_;
  std::vector<int64_t> classes_;
  std::vector<float> scores_;
};

// Whether one output holds classes, and as many as that. A model that was compiled without a loss has no notes.classes.
bool has_classes(const Program& program, const StepNotes& notes, int64_t classes) {
  if (classes == 0) return false;
  std::vector<int64_t> found;
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::output || !buffer.name.is(Role::model)) continue;
    const auto judged = std::ranges::find(notes.judged, buffer.name.text, &JudgedOutput::output);
    if (judged != notes.judged.end() && judged->meaning != OutputMeaning::values)
      found.push_back(output_shape(*judged, buffer.type).classes);
  }
  return found == std::vector{classes};
}

std::vector<Column> columns_of(const Program& program, const StepNotes& notes, int64_t batch,
                               const PredictOptions& options) {
  std::vector<Column> columns;
  Problems problems;
  bool has_outputs = false, has_classes = false;
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::output || !buffer.name.is(Role::model)) continue;
    has_outputs = true;
    const auto judged = std::ranges::find(notes.judged, buffer.name.text, &JudgedOutput::output);
    has_classes = has_classes || (judged != notes.judged.end() && judged->meaning != OutputMeaning::values);
    if (buffer.type.shape.empty() || buffer.type.shape.front() != batch)
      problems.add(fmt::format("output '{}' is {}: a row for each of the {} samples of a batch expected",
                               buffer.name.text, to_string(buffer.type), batch));
    else
      try {
        columns.emplace_back(buffer, judged == notes.judged.end() ? nullptr : &*judged, options);
      } catch (const Error& e) {
        problems.add(e.what());
      }
  }
  problems.throw_if_any();
  if (!has_outputs)
    throw Error("the step was compiled without the model's outputs: compile it again with keep_outputs true");
  if (!has_classes && (options.top > 0 || options.scores == PredictOptions::probabilities))
    throw Error(
        fmt::format("{}: no output is known to hold classes: name it with output, its axis with class_axis and "
                    "what it is trained with by loss",
                    options.top > 0 ? "top" : "probabilities"));
  return columns;
}

}  // namespace

std::optional<Predicted> predict(Executor& executor, Dataset dataset, const PredictOptions& given,
                                 const std::filesystem::path& file) {
  if (dataset.tokens) throw Error("predictions are made of arrays: give the token ids as NAME=FILE.npy");
  const int index = program_index(executor.model(), "evaluate");
  const Program& program = executor.model().programs[static_cast<size_t>(index)];
  const StepNotes& notes = executor.model().notes;
  PredictOptions options = given;
  // Those that training learned of its data, unless others are given.
  if (options.class_names.empty() && has_classes(program, notes, std::ssize(dataset.facts.classes)))
    options.class_names = dataset.facts.classes;
  FeedOptions feeding = options.evaluate.feed;
  leave_labels_out(dataset, feeding, notes, program);
  const DataFeed feed(dataset, program, feeding);
  ValueRanges inputs = options.evaluate.ranges;
  inputs.labels.clear(), inputs.labels_of.clear();
  feed.check(inputs);
  const std::vector<int64_t> order = feed.order(SampleOrder::as_stored, options.evaluate.seed, 0);
  feed.announce({order});
  std::vector<Column> columns = columns_of(program, notes, feed.batch(), options);
  Predicted predicted{.samples = static_cast<int64_t>(order.size()), .remarks = feed.remarks()};
  const auto names = [](const RowArray& array) { return !array.elements.empty() || !array.value_names.empty(); };
  for (const Column& column : columns)
    predicted.arrays.insert(predicted.arrays.end(), column.arrays().begin(), column.arrays().end());
  std::set<std::string_view> named;
  for (const RowArray& array : predicted.arrays)
    if (!named.insert(array.name).second)
      throw Error(fmt::format("top: '{}' is an output's name and that of another one's classes or scores: leave it out",
                              array.name));
  if (!options.class_names.empty() && std::ranges::none_of(predicted.arrays, names))
    predicted.remarks.emplace_back("class_names is not used: no output is known to hold a class for each sample");

  const auto fill = [&](RowSink& sink) {
    std::deque<int64_t> in_flight;  // rows
    const auto collect = [&](Wait wait) {
      while (!in_flight.empty()) {
        const std::optional<StepResult> result = executor.poll(wait);
        if (!result) return;
        std::vector<std::span<const std::byte>> arrays;
        for (Column& column : columns) column.take(result->outputs, in_flight.front(), arrays);
        sink.add(arrays, in_flight.front());
        in_flight.pop_front();
      }
    };
    int64_t batches = 0;
    for (std::span<const int64_t> rest(order); !rest.empty();) {
      const std::span<const int64_t> rows = rest.first(std::min(rest.size(), static_cast<size_t>(feed.batch())));
      feed.fill(rows, {.iteration = batches++, .seed = options.evaluate.seed}, executor.begin_step(index));
      executor.submit();
      in_flight.push_back(static_cast<int64_t>(rows.size()));
      collect(Wait::no);
      rest = rest.subspan(rows.size());
      if (options.evaluate.signals != nullptr && options.evaluate.signals->received() != 0) throw Interrupted();
    }
    collect(Wait::yes);
  };
  try {
    write_rows(file, predicted.arrays, predicted.samples, fill);
  } catch (const Interrupted&) {
    return std::nullopt;
  }
  return predicted;
}

}  // namespace halfstep
