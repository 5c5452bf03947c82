#include "training/measures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"
#include "training/measure_tally.h"

namespace halfstep {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kMostClassNameBytes = 16 << 20;

// ---- counts of classes ----

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }
double precision(double right, double guessed, double) { return ratio(right, guessed); }
double recall(double right, double, double actual) { return ratio(right, actual); }
double f1(double right, double guessed, double actual) { return ratio(2 * right, guessed + actual); }
double iou(double right, double guessed, double actual) { return ratio(right, guessed + actual - right); }
using OfCounts = double (*)(double right, double guessed, double actual);

enum class Average : uint8_t { usual, macro, micro, weighted, binary };

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

// Of several labels that are asked one by one each counts; a class that no label has and nobody guesses does not.
bool is_counted(const Tally& t, size_t c) { return t.form == Tally::labels || t.actual[c] + t.guessed[c] > 0; }

template <OfCounts F, Average A>
MeasureResult of_counts(const Tally& t, int64_t) {
  MeasureResult result;
  double all = 0, weights = 0;
  Average average = A;
  if (A == Average::usual) average = t.form == Tally::classes && t.size() == 2 ? Average::binary : Average::macro;
  for (size_t c = 0; c < t.size(); ++c) {
    const double value = F(t.right[c], t.guessed[c], t.actual[c]);
    result.per_class.push_back(is_counted(t, c) ? value : kNaN);
    const double weight = average == Average::weighted ? t.actual[c] : is_counted(t, c);
    all += weight * value, weights += weight;
  }
  result.value = weights > 0 ? all / weights : kNaN;
  if (average == Average::binary) result.value = t.judged > 0 ? F(t.right[1], t.guessed[1], t.actual[1]) : kNaN;
  if (average == Average::micro) result.value = t.judged > 0 ? F(sum(t.right), sum(t.guessed), sum(t.actual)) : kNaN;
  return result;
}

MeasureResult accuracy(const Tally& t, int64_t) { return {t.judged > 0 ? t.correct / t.judged : kNaN}; }
MeasureResult top(const Tally& t, int64_t k) { return {t.judged > 0 ? t.hits.at(k) / t.judged : kNaN}; }
MeasureResult confusion(const Tally&, int64_t) { return {}; }

MeasureResult auc(const Tally& t, int64_t) {
  MeasureResult result;
  double all = 0, defined = 0;
  for (size_t c = 0; c < t.scores.size(); ++c) {
    std::vector<bool> holds;
    if (t.holds.empty()) {
      holds.reserve(t.truth.size());
      for (const int32_t label : t.truth) holds.push_back(label == static_cast<int32_t>(c));
    }
    const double area = area_under_curve(t.scores[c], t.holds.empty() ? holds : t.holds[c]);
    result.per_class.push_back(area);
    if (!std::isnan(area)) all += area, ++defined;
  }
  // One label has one score, but two classes.
  if (result.per_class.size() < t.size()) result.per_class.assign(t.size(), result.per_class.front());
  result.value = defined > 0 ? all / defined : kNaN;
  return result;
}

// ---- values ----

MeasureResult mae(const Tally& t, int64_t) { return {t.absolute / t.elements}; }
MeasureResult rmse(const Tally& t, int64_t) { return {std::sqrt(t.elements > 0 ? t.squared / t.elements : t.loss)}; }
MeasureResult r2(const Tally& t, int64_t) {
  if (t.rows < 2) return {kNaN};
  double all = 0;
  for (const Tally::Column& c : t.columns)
    all += c.spread > 0 ? 1 - c.residual / c.spread : c.residual == 0 ? 1 : c.residual > 0 ? 0 : kNaN;
  return {all / static_cast<double>(t.columns.size())};
}

MeasureResult perplexity(const Tally& t, int64_t) { return {std::exp(t.loss)}; }

constexpr uint8_t kOfBoth = kOfClasses | kOfLabels;
#define HALFSTEP_AVERAGES(NAME, WHAT, LINK)                                                                      \
  {#NAME,                                                                                                        \
   kOfBoth,                                                                                                      \
   kCounts,                                                                                                      \
   WHAT "; of the second class where there are two classes, or one label that holds or not, otherwise `" #NAME   \
        "_macro`",                                                                                               \
   LINK,                                                                                                         \
   of_counts<NAME, Average::usual>,                                                                              \
   #NAME},                                                                                                       \
      {#NAME "_macro",                                                                                           \
       kOfBoth,                                                                                                  \
       kCounts,                                                                                                  \
       "mean of `" #NAME "` over the classes that have a label or a guess, of labels that hold or not over all", \
       LINK ", `average=\"macro\"`",                                                                             \
       of_counts<NAME, Average::macro>,                                                                          \
       #NAME},                                                                                                   \
      {#NAME "_micro",                                                                                           \
       kOfBoth,                                                                                                  \
       kCounts,                                                                                                  \
       "of the counts of all classes together",                                                                  \
       LINK ", `average=\"micro\"`",                                                                             \
       of_counts<NAME, Average::micro>,                                                                          \
       #NAME},                                                                                                   \
  {                                                                                                              \
    #NAME "_weighted", kOfBoth, kCounts, "mean over classes, each weighed by its labels",                        \
        LINK ", `average=\"weighted\"`", of_counts<NAME, Average::weighted>, #NAME                               \
  }

constexpr MeasureRow kRows[] = {
    {"accuracy", kOfBoth, kCounts,
     "share of labels whose class has the highest score, of equal ones the first; of labels that hold or not, share of "
     "all of them that are guessed right",
     "scikit-learn `accuracy_score`; of labels that hold or not, Keras `BinaryAccuracy`", accuracy},
    {"top", kOfClasses, kHits,
     "`top5`: share of labels among the 5 classes of the highest scores; of equal scores those of lower classes count "
     "as higher, so that `top1` is the accuracy",
     "scikit-learn `top_k_accuracy_score`, which takes the higher class of equal ones", top},
    HALFSTEP_AVERAGES(precision, "right guesses / guesses", "scikit-learn `precision_score`"),
    HALFSTEP_AVERAGES(recall, "right guesses / labels", "scikit-learn `recall_score`"),
    HALFSTEP_AVERAGES(f1, "2 right guesses / (guesses + labels)", "scikit-learn `f1_score`"),
    {"auc", kOfBoth, kScores,
     "area under the ROC curve, exactly: the share of pairs of a sample of the class and one of none whose scores are "
     "in "
     "that order, equal ones counting half; of several classes one against the rest, by the softmax, and the mean over "
     "those that have both",
     "scikit-learn `roc_auc_score`, `multi_class=\"ovr\"`; torchmetrics `AUROC`", auc, "auc"},
    {"iou", kOfBoth, kCounts,
     "mean of right guesses / (guesses or labels) over the classes that have a label or a guess, of labels that hold "
     "or "
     "not over all; labels are positions: pixels of a segmentation",
     "scikit-learn `jaccard_score`, `average=\"macro\"`; torchmetrics `JaccardIndex`", of_counts<iou, Average::macro>,
     "iou"},
    {"confusion", kOfClasses | kOfLabels, kCounts | kConfusion,
     "the matrix of counts, a row for each label and a column for each guess; also as `confusion.svg` in `out`",
     "scikit-learn `confusion_matrix`", confusion},
    {"mae",
     kOfValues,
     0,
     "mean of the distances of outputs to their targets, over all elements",
     "scikit-learn `mean_absolute_error`",
     mae,
     {},
     MeasureRow::smaller},
    {"rmse",
     kOfValues,
     0,
     "root of the mean of (output - target)^2 over all elements",
     "torchmetrics `MeanSquaredError(squared=False)`; scikit-learn `root_mean_squared_error` of one output",
     rmse,
     {},
     MeasureRow::smaller},
    {"r2", kOfValues, kColumns,
     "1 - sum of (output - target)^2 / sum of (target - its mean)^2 of each element of a sample by itself, and the "
     "mean "
     "of these; where all targets are equal 1 if all outputs are right, else 0; of one sample not defined",
     "scikit-learn `r2_score`", r2},
    {"perplexity",
     kOfClasses,
     kMeanLoss,
     "exp(loss), the loss being the mean cross-entropy in nats",
     "torchmetrics `Perplexity`",
     perplexity,
     {},
     MeasureRow::smaller},
};
#undef HALFSTEP_AVERAGES

uint8_t judge_of(OutputMeaning meaning) {
  switch (meaning) {
    case OutputMeaning::values:
      return kOfValues;
    case OutputMeaning::label_logits:
    case OutputMeaning::label_probabilities:
      return kOfLabels;
    default:
      return kOfClasses;
  }
}

struct ParsedName {
  std::string loss;  // empty: any
  const MeasureRow* row = nullptr;
  int64_t number = 0;
};

std::vector<std::string> known_names() {
  std::vector<std::string> names;
  for (const MeasureRow& row : kRows) names.emplace_back(row.name == "top" ? "top5" : std::string(row.name));
  return names;
}

ParsedName parse(const std::string& text) {
  ParsedName parsed;
  const size_t dot = text.rfind('.');
  if (dot != std::string::npos) parsed.loss = text.substr(0, dot);
  const std::string name = text.substr(dot == std::string::npos ? 0 : dot + 1);
  if (name.starts_with("top") && name.size() > 3 && name.size() < 12 &&
      std::ranges::all_of(name.substr(3), [](char c) { return c >= '0' && c <= '9'; })) {
    parsed.row = std::ranges::find(kRows, "top", &MeasureRow::name);
    parsed.number = std::stoll(name.substr(3));
    if (parsed.number < 1) throw Error("measures: '" + text + "': at least top1 expected");
    return parsed;
  }
  const auto* found = std::ranges::find(kRows, name, &MeasureRow::name);
  if (found == std::end(kRows) || name == "top") {
    const std::vector<std::string> names = known_names();
    const std::string near = nearest(name, names);
    throw Error(fmt::format("measures: no measure '{}'{}. There are: {}", name,
                            near.empty() ? "" : ", did you mean '" + near + "'", fmt::join(names, ", ")));
  }
  parsed.row = found;
  return parsed;
}

bool is_root(const MeasureRow& row) { return row.name == "rmse"; }

std::string_view meaning_text(OutputMeaning meaning) {
  return judge_of(meaning) == kOfValues   ? "values"
         : judge_of(meaning) == kOfLabels ? "labels that hold or not"
                                          : "classes";
}

std::string named_of(const std::string& loss, std::string_view name) {
  return (loss.empty() ? "" : loss + ".") + std::string(name);
}

// A measure of one output.
struct Asked {
  std::string name;
  const MeasureRow* row;
  int64_t number;
  size_t judged;      // which output
  bool reads_output;  // the mean of its loss says it otherwise
};

// What one name asks of the outputs; Error where it fits none.
std::vector<Asked> ask(const std::string& name, std::span<const JudgedOutput> outputs) {
  const ParsedName parsed = parse(name);
  const MeasureRow& row = *parsed.row;
  std::vector<Asked> asked;
  std::string refused = fmt::format("measures: '{}': there is no loss '{}' that has labels", name, parsed.loss);
  if (outputs.empty())
    refused = fmt::format("measures: '{}' is of an output and its labels: the model computes its loss itself", name);
  bool fits = false;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const JudgedOutput& one = outputs[i];
    if (!parsed.loss.empty() && parsed.loss != one.loss) continue;
    if (!(row.of & judge_of(one.meaning))) {
      refused = fmt::format("measures: '{}' is none of output '{}', which holds {}", name, one.output,
                            meaning_text(one.meaning));
    } else if (row.parts == kMeanLoss && one.smoothed) {
      refused = fmt::format(
          "measures: '{}' is exp(loss) of a plain cross-entropy, and this loss is smoothed or weighed: leave one of "
          "them out",
          name);
    } else {
      fits = true;
      // Steps count by themselves what is right of classes.
      if (row.name == "accuracy" && judge_of(one.meaning) == kOfClasses) continue;
      asked.push_back({named_of(one.loss, name.substr(parsed.loss.empty() ? 0 : parsed.loss.size() + 1)), &row,
                       parsed.number, i, row.parts != kMeanLoss && !(is_root(row) && one.squared)});
    }
  }
  if (!fits) throw Error(refused);
  return asked;
}

std::vector<Asked> ask_all(const std::vector<std::string>& names, std::span<const JudgedOutput> outputs) {
  std::vector<Asked> all;
  Problems problems;
  for (const std::string& name : names) try {
      for (Asked& one : ask(name, outputs))
        if (std::ranges::find(all, one.name, &Asked::name) == all.end()) all.push_back(std::move(one));
    } catch (const Error& e) {
      problems.add(e.what());
    }
  problems.throw_if_any();
  return all;
}

}  // namespace

std::span<const MeasureRow> measure_rows() { return kRows; }

const MeasureRow& measure_row(const std::string& name) { return *parse(name).row; }

std::optional<double> MeasureReport::find(std::string_view name) const {
  const auto found = std::ranges::find(values, name, &MeasureValue::name);
  return found == values.end() ? std::nullopt : std::optional(found->value);
}

std::string class_name(const std::vector<std::string>& names, int64_t index) {
  return static_cast<size_t>(index) < names.size() ? names[static_cast<size_t>(index)] : std::to_string(index);
}

std::vector<std::string> read_class_names(const std::string& path, int64_t classes) {
  std::vector<std::string> names = lines_of(read_file(path, kMostClassNameBytes));
  if (names.back().empty()) names.pop_back();
  for (std::string& name : names) {
    if (name.ends_with('\r')) name.pop_back();
    name = printable(name);
  }
  if (names.empty()) throw Error("class_names: '" + path + "' is empty: a name in each line expected");
  if (classes > 0 && static_cast<int64_t>(names.size()) != classes)
    throw Error(fmt::format("class_names: '{}' has {} lines, the output has {} classes", path, names.size(), classes));
  return names;
}

bool need_outputs(const std::vector<std::string>& names, std::span<const JudgedOutput> judged) {
  return std::ranges::any_of(ask_all(names, judged), &Asked::reads_output);
}

// One output, and what is asked of it.
struct Measures::Judged {
  JudgedOutput note;
  size_t number;  // among all that are judged
  std::vector<Asked> asked{};
  JudgedShape shape{};
  size_t input = 0;  // of its labels, among the program's
  TensorType labels{}, output{};
  Tally tally{};

  bool reads_output() const { return std::ranges::any_of(asked, &Asked::reads_output); }
};

Measures::~Measures() = default;
Measures::Measures(Measures&&) noexcept = default;

Measures::Measures(const MeasureOptions& options, const Program& evaluate, const StepNotes& notes, int64_t samples)
    : options_(options) {
  for (size_t i = 0; i < notes.judged.size(); ++i)
    judged_.push_back(std::make_unique<Judged>(Judged{.note = notes.judged[i], .number = i}));
  for (Asked& asked : ask_all(options.names, notes.judged)) judged_[asked.judged]->asked.push_back(std::move(asked));
  std::erase_if(judged_, [](const auto& judged) { return judged->asked.empty(); });
  Problems problems;
  for (const auto& judged : judged_) try {
      if (judged->reads_output()) bind(*judged, evaluate, samples);
    } catch (const Error& e) {
      problems.add(e.what());
    }
  problems.throw_if_any();
}

void Measures::bind(Judged& judged, const Program& evaluate, int64_t samples) const {
  const JudgedOutput& note = judged.note;
  const Buffer *output = nullptr, *labels = nullptr;
  size_t input = 0;
  for (const Buffer& buffer : evaluate.buffers) {
    if (buffer.kind == BufferKind::output && buffer.name == Name(note.output)) output = &buffer;
    if (buffer.kind != BufferKind::input) continue;
    if (buffer.name == Name(note.labels)) labels = &buffer, judged.input = input;
    ++input;
  }
  if (output == nullptr)
    throw Error(fmt::format(
        "measures: the step was compiled without output '{}': compile it again with these measures, or with "
        "keep_outputs true",
        note.output));
  if (labels == nullptr)
    throw Error(fmt::format("measures: the step has no input '{}' of labels: compile it again", note.labels));
  judged.output = output->type, judged.labels = labels->type;
  judged.shape = judged_shape(note, output->type, labels->type);
  uint8_t parts = 0;
  for (const Asked& asked : judged.asked) parts |= asked.reads_output ? asked.row->parts : 0;
  const bool of_values = judge_of(note.meaning) == kOfValues;
  const int64_t classes = of_values ? 0 : judged.shape.classes;
  if ((parts & kConfusion) && classes > kMostConfusedClasses)
    throw Error(fmt::format("measures: confusion of {} classes is a matrix of more than {} x {}: leave it out", classes,
                            kMostConfusedClasses, kMostConfusedClasses));
  if ((parts & kConfusion) && judge_of(note.meaning) == kOfLabels && classes > 1)
    throw Error(
        fmt::format("measures: confusion is of one class for each sample, output '{}' has {} labels that hold or not",
                    note.output, classes));
  if ((parts & kColumns) && judged.shape.inner > kMostColumns)
    throw Error(fmt::format("measures: r2 of {} elements a sample, at most {}", judged.shape.inner, kMostColumns));
  judged.tally = make_tally(note, judged.shape, parts);
  if (const int64_t bytes = score_bytes(judged.tally, judged.shape, samples); bytes > kMostScoreBytes)
    throw Error(fmt::format(
        "measures: auc keeps the scores of all samples, {} MiB here and {} at most: leave it out, or take it of fewer "
        "samples",
        bytes >> 20, kMostScoreBytes >> 20));
  const auto told = static_cast<int64_t>(judged.tally.size()),
             names = static_cast<int64_t>(options_.class_names.size());
  if (names > 0 && told > 0 && names != told)
    throw Error(fmt::format("class_names: {} names are given, output '{}' has {} classes", names, note.output, told));
  for (const Asked& asked : judged.asked) {
    if (asked.row->parts != kHits) continue;
    if (asked.number >= judged.shape.classes)
      throw Error(fmt::format("measures: '{}' of the {} classes of output '{}' is always 1: at most top{}", asked.name,
                              judged.shape.classes, note.output, judged.shape.classes - 1));
    judged.tally.hits[asked.number] = 0;
  }
}

Measures::Labels Measures::labels(std::span<const std::span<std::byte>> staging) const {
  Labels copies;
  for (const auto& judged : judged_) {
    copies.emplace_back();
    if (judged->reads_output()) copies.back().assign(staging[judged->input].begin(), staging[judged->input].end());
  }
  return copies;
}

std::vector<std::string> Measures::label_inputs() const {
  std::vector<std::string> names;
  for (const auto& judged : judged_)
    if (judged->reads_output()) names.push_back(judged->note.labels);
  return names;
}

std::vector<std::string> Measures::names() const {
  std::vector<std::string> names;
  for (const auto& judged : judged_)
    for (const Asked& asked : judged->asked)
      if (!(asked.row->parts & kConfusion)) names.push_back(asked.name);
  return names;
}

void Measures::add(const NamedTensors& outputs, const Labels& labels, int64_t rows, int64_t sample) {
  for (size_t i = 0; i < judged_.size(); ++i) {
    Judged& judged = *judged_[i];
    if (!judged.reads_output()) continue;
    const Tensor& computed = outputs.at(Name(judged.note.output));
    require(computed.type.shape == judged.output.shape, "an output has the shape of its buffer");
    Tensor cast;
    if (computed.type.dtype != DType::f32) cast = computed.cast(DType::f32);
    const Tensor& scores = computed.type.dtype == DType::f32 ? computed : cast;
    add_batch(judged.tally, judged.note, judged.shape, scores.as<float>(), judged.labels.dtype, labels[i], rows,
              sample);
    // Where the number of samples was not known before.
    if (score_bytes(judged.tally, judged.shape, sample) > kMostScoreBytes)
      throw Error(fmt::format("measures: auc keeps the scores of all samples, more than {} MiB by now: leave it out",
                              kMostScoreBytes >> 20));
  }
}

MeasureReport Measures::report(std::span<const double> losses) const {
  MeasureReport report;
  report.class_names = options_.class_names;
  for (const auto& judged : judged_) {
    Tally& tally = judged->tally;
    if (judged->number < losses.size()) tally.loss = losses[judged->number];
    ClassTable table{.loss = judged->note.loss, .support = tally.actual, .columns = {}};
    std::vector<double> areas;
    for (const Asked& asked : judged->asked) {
      if (asked.row->parts & kConfusion) {
        report.confusions.push_back({judged->note.loss, static_cast<int64_t>(tally.size()), tally.confusion});
        continue;
      }
      MeasureResult result = asked.row->result(tally, asked.number);
      if (tally.nan > 0 && asked.reads_output) result.value = kNaN;
      report.values.push_back({asked.name, result.value});
      if (asked.row->parts == kScores) areas = result.per_class;
      const auto is_there = [&](const auto& column) { return column.first == asked.row->column; };
      if (options_.per_class && !asked.row->column.empty() && std::ranges::none_of(table.columns, is_there))
        table.columns.emplace_back(asked.row->column, std::move(result.per_class));
    }
    if (!table.columns.empty()) report.tables.push_back(std::move(table));
    const std::vector<std::string> told = remarks(tally, judged->note.output, areas);
    report.remarks.insert(report.remarks.end(), told.begin(), told.end());
  }
  return report;
}

std::vector<std::string> Measures::remarks(const Tally& tally, const std::string& output,
                                           std::span<const double> areas) const {
  constexpr size_t kMostNamed = 5;
  std::vector<std::string> told;
  if (tally.nan > 0)
    told.push_back(
        fmt::format("output '{}' holds NaN, or infinities that have no softmax, {} time{}, first in sample {}: no "
                    "measure of it has "
                    "a value",
                    output, static_cast<int64_t>(tally.nan), tally.nan == 1 ? "" : "s", tally.first_nan));
  const auto list = [&](const auto& is_left_out, const char* why) {
    std::vector<std::string> names;
    for (size_t c = 0; c < tally.size(); ++c)
      if (is_left_out(c)) names.push_back(class_name(options_.class_names, static_cast<int64_t>(c)));
    const size_t count = names.size();
    if (count == 0 || tally.judged == 0) return;
    if (count > kMostNamed) names.resize(kMostNamed), names.emplace_back("...");
    told.push_back(fmt::format("{} of the {} classes of output '{}' {}, and {} left out of means over classes: {}",
                               count, tally.size(), output, why, count == 1 ? "is" : "are", fmt::join(names, ", ")));
  };
  if (tally.parts & kCounts) list([&](size_t c) { return !is_counted(tally, c); }, "have neither labels nor guesses");
  if (!areas.empty()) list([&](size_t c) { return std::isnan(areas[c]); }, "have no label, or all, and so no auc");
  return told;
}

}  // namespace halfstep
