// Measures equal scikit-learn's, whatever the batch; what has no value is told.
#include "training/measures.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "tests/recorded.h"
#include "training/confusion.h"
#include "training/measure_tally.h"

namespace halfstep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The evaluation of one output over samples that are given at once.
struct Evaluated {
  JudgedOutput judged;
  Shape shape, label_shape;  // of all samples
  std::vector<float> outputs;
  std::vector<double> labels;
  DType label_type = DType::i64;

  Program program(int64_t batch) const {
    Shape output = shape, label = label_shape;
    output[0] = label[0] = batch;
    return {"evaluate",
            {{"x", BufferKind::input, {DType::f32, {batch, 1}}},
             {judged.labels, BufferKind::input, {label_type, label}},
             {judged.output, BufferKind::output, {DType::f32, output}}},
            {}};
  }

  MeasureReport measure(const MeasureOptions& options, int64_t batch, double loss = 0) const {
    StepNotes notes;
    notes.judged = {judged};
    const Program evaluate = program(batch);
    Measures measures(options, evaluate, notes, shape[0]);
    const TensorType output = evaluate.buffers[2].type, label = evaluate.buffers[1].type;
    const auto size = static_cast<size_t>(output.element_count() / batch);
    const auto label_size = static_cast<size_t>(label.element_count() / batch);
    for (int64_t sample = 0; sample < shape[0]; sample += batch) {
      Tensor x(TensorType{DType::f32, {batch, 1}}), y(label), computed(output);
      const int64_t rows = std::min(batch, shape[0] - sample);
      for (int64_t row = 0; row < batch; ++row) {  // as a feed does: the last one is repeated
        const auto from = static_cast<size_t>(sample + std::min(row, rows - 1));
        for (size_t i = 0; i < size; ++i)
          computed.as<float>()[static_cast<size_t>(row) * size + i] = outputs[from * size + i];
        for (size_t i = 0; i < label_size; ++i)
          y.set(row * static_cast<int64_t>(label_size) + static_cast<int64_t>(i), labels[from * label_size + i]);
      }
      const std::vector<std::span<std::byte>> staging{x.data, y.data};
      measures.add({{judged.output, computed}}, measures.labels(staging), rows, sample);
    }
    return measures.report(std::vector{loss});
  }
};

Evaluated evaluated(const json& recorded_case) {
  Evaluated e;
  e.judged = {.output = "y", .labels = "labels", .ignored = {}};
  e.judged.meaning = *parse_meaning(recorded_case.at("meaning").get<std::string>());
  e.judged.class_axis = recorded_case.at("class_axis");
  if (!recorded_case.at("ignored").is_null()) e.judged.ignored = recorded_case.at("ignored").get<int64_t>();
  e.shape = recorded_case.at("shape").get<Shape>(), e.label_shape = recorded_case.at("label_shape").get<Shape>();
  e.outputs = recorded_case.at("scores").get<std::vector<float>>();
  e.labels = recorded_case.at("labels").get<std::vector<double>>();
  if (e.judged.meaning >= OutputMeaning::label_logits) e.label_type = DType::f32;
  return e;
}

// Three classes; the guess of each sample is its first number.
Evaluated guesses(const std::vector<std::pair<int, int>>& guess_and_label) {
  Evaluated e{.judged = {.output = "y", .labels = "labels", .meaning = OutputMeaning::logits, .ignored = {}},
              .shape = {static_cast<int64_t>(guess_and_label.size()), 3},
              .label_shape = {static_cast<int64_t>(guess_and_label.size())},
              .outputs = {},
              .labels = {}};
  for (const auto& [guess, label] : guess_and_label) {
    for (int c = 0; c < 3; ++c) e.outputs.push_back(c == guess ? 1.0f : 0.0f);
    e.labels.push_back(label);
  }
  return e;
}

TEST(Measures, AreThoseOfScikitLearnWhateverTheBatch) {
  const json cases = recorded("measures").at("cases");
  ASSERT_GE(cases.size(), 15u);
  for (const json& one : cases) {
    const Evaluated e = evaluated(one);
    MeasureOptions options{.per_class = one.contains("per_class")};
    for (const auto& [name, value] : one.at("measures").items()) options.names.push_back(name);
    if (one.contains("confusion")) options.names.emplace_back("confusion");
    for (const int64_t batch : {int64_t{1}, int64_t{7}, e.shape[0]}) {
      SCOPED_TRACE(fmt::format("{}, batch {}", one.at("name").get<std::string>(), batch));
      const MeasureReport report = e.measure(options, batch);
      for (const auto& [name, value] : one.at("measures").items()) {
        const std::optional<double> found = report.find(name);
        ASSERT_TRUE(found) << name;
        if (value.is_null())
          EXPECT_TRUE(std::isnan(*found)) << name << " is " << *found;
        else
          EXPECT_NEAR(*found, value.get<double>(), 1e-12 * std::max(1.0, std::abs(value.get<double>()))) << name;
      }
      if (one.contains("per_class"))
        for (const auto& [column, values] : report.tables.at(0).columns)
          for (size_t c = 0; one["per_class"].contains(column) && c < values.size(); ++c)
            if (!std::isnan(values[c])) {
              EXPECT_NEAR(values[c], one["per_class"][column][c].get<double>(), 1e-12) << column << " of " << c;
            }
      if (one.contains("confusion")) {
        std::vector<int64_t> matrix;
        for (const json& row : one["confusion"])
          for (const json& count : row) matrix.push_back(count);
        EXPECT_EQ(report.confusions.at(0).counts, matrix);
      }
    }
  }
}

TEST(Measures, OfALossAreItsOwn) {
  Evaluated e = guesses({{0, 0}, {1, 2}});
  EXPECT_NEAR(*e.measure({.names = {"perplexity"}}, 2, 0.7).find("perplexity"), std::exp(0.7), 1e-12);
  e.judged.meaning = OutputMeaning::values, e.judged.squared = true, e.label_shape = {2, 3}, e.labels.assign(6, 0.0);
  EXPECT_NEAR(*e.measure({.names = {"rmse"}}, 2, 0.25).find("rmse"), 0.5, 1e-12) << "root of the loss";
  EXPECT_FALSE(need_outputs({"rmse"}, std::vector{e.judged}));
  EXPECT_TRUE(need_outputs({"rmse", "mae"}, std::vector{e.judged}));
}

TEST(Measures, TellOfWhatHasNoValue) {
  Evaluated e = guesses({{0, 0}, {1, 1}, {0, 1}, {1, 0}});
  const MeasureOptions options{.names = {"f1", "auc"}, .per_class = true, .class_names = {"cat", "dog", "eel"}};
  MeasureReport report = e.measure(options, 3);
  EXPECT_EQ(report.find("f1"), 0.5) << "of the two classes that are there";
  EXPECT_TRUE(std::isnan(report.tables.at(0).columns.at(0).second.at(2)));
  EXPECT_THAT(report.remarks,
              ElementsAre("1 of the 3 classes of output 'y' have neither labels nor guesses, and is left out of means "
                          "over classes: eel",
                          "1 of the 3 classes of output 'y' have no label, or all, and so no auc, and is left out of "
                          "means over classes: eel"));
  e.outputs[3 * 2 + 1] = static_cast<float>(kNaN);
  report = e.measure(options, 3);
  EXPECT_TRUE(std::isnan(*report.find("f1")) && std::isnan(*report.find("auc")));
  EXPECT_THAT(report.remarks.at(0),
              HasSubstr("holds NaN, or infinities that have no softmax, 1 time, first in sample 2"));
  e.outputs[3 * 2 + 1] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isnan(*e.measure({.names = {"auc"}}, 4).find("auc")));
  EXPECT_EQ(e.measure({.names = {"recall_micro"}}, 4).find("recall_micro"), 0.75) << "an order is all that it needs";
  e.judged.ignored = 0, e.labels.assign(4, 0);
  EXPECT_TRUE(std::isnan(*e.measure({.names = {"f1"}}, 4).find("f1"))) << "no label counts";
}

// Its sample's other labels count.
TEST(Measures, AnIgnoredLabelIsLeftOutAlone) {
  Evaluated e{.judged = {.output = "y", .labels = "labels", .meaning = OutputMeaning::label_logits, .ignored = -1},
              .shape = {2, 3},
              .label_shape = {2, 3},
              .outputs = {1, -1, 1, 1, 1, -1},
              .labels = {1, -1, 0, -1, 1, 0},
              .label_type = DType::i64};
  const MeasureReport report = e.measure({.names = {"precision_micro", "recall_micro", "auc"}}, 2);
  EXPECT_NEAR(*report.find("precision_micro"), 2.0 / 3, 1e-12);
  EXPECT_EQ(report.find("recall_micro"), 1);
}

TEST(Measures, RefuseByName) {
  const Evaluated e = guesses({{0, 0}, {1, 1}});
  const auto refused = [&](const MeasureOptions& options, const std::string& why) {
    EXPECT_THAT([&] { e.measure(options, 2); }, testing::ThrowsMessage<Error>(HasSubstr(why))) << why;
  };
  refused({.names = {"f2"}}, "no measure 'f2', did you mean 'f1'. There are: accuracy, top5");
  refused({.names = {"top"}}, "no measure 'top'");
  refused({.names = {"top3"}}, "'top3' of the 3 classes of output 'y' is always 1: at most top2");
  refused({.names = {"top0"}}, "at least top1 expected");
  refused({.names = {"mae", "r2"}}, "'mae' is none of output 'y', which holds classes\nmeasures: 'r2'");
  refused({.names = {"box.f1"}}, "there is no loss 'box'");
  refused({.names = {"f1"}, .class_names = {"cat", "dog"}}, "2 names are given, output 'y' has 3 classes");
  StepNotes notes;
  notes.judged = {e.judged};
  Program evaluate = e.program(2);
  EXPECT_THAT([&] { Measures({.names = {"auc"}}, evaluate, notes, int64_t{1} << 40); },
              testing::ThrowsMessage<Error>(HasSubstr("auc keeps the scores of all samples, 25165824 MiB here")));
  evaluate.buffers.pop_back();
  EXPECT_THAT([&] { Measures({.names = {"f1"}}, evaluate, notes, 2); },
              testing::ThrowsMessage<Error>(HasSubstr("compiled without output 'y'")));
  EXPECT_NO_THROW(Measures({.names = {"accuracy"}}, evaluate, notes, 2)) << "the step counts it";
  notes.judged[0].smoothed = true;
  EXPECT_THAT([&] { Measures({.names = {"perplexity"}}, evaluate, notes, 2); },
              testing::ThrowsMessage<Error>(HasSubstr("smoothed")));
  notes.judged.clear();
  EXPECT_THAT([&] { Measures({.names = {"f1"}}, evaluate, notes, 2); },
              testing::ThrowsMessage<Error>(HasSubstr("computes its loss itself")));
  const Evaluated wrong = guesses({{0, 3}});
  EXPECT_THAT([&] { wrong.measure({.names = {"f1"}}, 1); },
              testing::ThrowsMessage<Error>(HasSubstr("sample 0 has label 3, the output has 3 classes")));
}

TEST(Measures, OfSeveralLossesBelongToThem) {
  StepNotes notes;
  const Evaluated classes = guesses({{0, 0}, {1, 1}});
  notes.judged = {classes.judged, {.output = "b", .labels = "t", .ignored = {}, .squared = true}};
  notes.judged[0].loss = "kind", notes.judged[1].loss = "box";
  notes.losses = {{.name = "kind", .labels = "labels"}, {.name = "box", .labels = "t"}};
  Program evaluate = classes.program(2);
  Measures measures({.names = {"f1", "box.rmse", "rmse"}}, evaluate, notes, 2);
  const MeasureReport report = measures.report(std::vector{0.5, 0.04});
  EXPECT_TRUE(report.find("kind.f1"));
  EXPECT_NEAR(*report.find("box.rmse"), 0.2, 1e-12);
  EXPECT_EQ(report.values.size(), 2u) << "one asked for twice stands there once";
}

TEST(Measures, NamesOfClassesAreLines) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() / "names.txt";
  write_file_atomically(path, "cat\r\nwild dog\n");
  EXPECT_THAT(read_class_names(path, 2), ElementsAre("cat", "wild dog"));
  EXPECT_THAT([&] { read_class_names(path, 3); },
              testing::ThrowsMessage<Error>(HasSubstr("has 2 lines, the output has 3 classes")));
  write_file_atomically(path, "");
  EXPECT_THROW(read_class_names(path, 0), Error);
}

TEST(Measures, ConfusionIsDrawnWithEscapedNames) {
  const Evaluated e = guesses({{0, 0}, {1, 1}, {1, 0}});
  const MeasureReport report = e.measure({.names = {"confusion"}, .class_names = {"<a&b>", "b", "c"}}, 2);
  const std::string svg = confusion_svg(report.confusions.at(0), report.class_names);
  EXPECT_THAT(svg, HasSubstr("&lt;a&amp;b&gt; as b: 1"));
  EXPECT_THAT(svg, testing::Not(HasSubstr("<a&b>")));
}

// docs/measures.md

std::string page() {
  std::string text =
      "# Measures\n\nWritten from `training/measures.cpp` (`UPDATE_EXPECTED=1 training_test`). `measures = \"f1,auc\"` "
      "in a recipe, or `--measures f1,auc`, adds them to `loss` and\n`accuracy` of every evaluation: after each epoch "
      "of `train`, and in `eval`. They stand in the output, in `metrics.jsonl` and in `--json`, with `test_` before\n"
      "those of an epoch. Of several [losses](losses.md) a name alone is of each that it fits, and `LOSS.NAME` of one; "
      "they are told as `LOSS.NAME`.\n\n"
      "`per_class = true` adds a row for each class, `class_names` the path of a text file with the name of a class in "
      "each line. Labels that `ignore_index` leaves out\ncount in none. What has no value is told, and is `null` in "
      "JSON.\n\n"
      "What an output holds follows from its loss and its last operator: classes, of which one holds "
      "(cross-entropy; guessed is that of the highest score), labels that hold or\nnot (guessed where a logit is above "
      "0, or the sigmoid that the model ends in above 0.5; one of them counts as two classes), or values.\n\n"
      "| `measures` | of | what | as |\n|---|---|---|---|\n";
  for (const MeasureRow& row : measure_rows()) {
    const char* of = row.of & kOfValues ? "values" : row.of & kOfLabels ? "classes, labels" : "classes";
    text +=
        fmt::format("| `{}` | {} | {} | {} |\n", row.name == "top" ? "top5" : row.name, of, row.definition, row.source);
  }
  return text + fmt::format(
                    "\nThey are computed on the host, in double, from the outputs and labels of each batch, which are "
                    "not kept: memory does not grow with the number of\nsamples, but for `auc`, which keeps {} bytes a "
                    "score and refuses more than {} MiB. A step gives its outputs only where a measure needs them: a "
                    "compiled directory\nis compiled with the measures, or with `keep_outputs = true`. `accuracy` of "
                    "classes and `rmse` of `mean_squared_error` need none.\n`confusion` has at most 2,000 classes; a "
                    "terminal that is too narrow for the matrix gets the ten most frequent mistakes.\n\n"
                    "Held to scikit-learn on {} sets of outputs, with equal scores, absent classes, one class alone, "
                    "ignored labels and equal targets among them, at three batch sizes\n"
                    "(`tests/references/measures.json`, by `tools/record_measures.py`): every value within 1e-12.\n",
                    sizeof(double), kMostScoreBytes >> 20, kMostConfusedClasses,
                    recorded("measures").at("cases").size());
}

TEST(Measures, PageIsThatOfTheRows) {
  static_assert(kMostConfusedClasses == 2000, "the page says so");
  const std::filesystem::path path = source_directory() / "docs/measures.md";
  if (std::getenv("UPDATE_EXPECTED")) write_file_atomically(path, page());
  EXPECT_EQ(page(), std::filesystem::exists(path) ? read_file(path) : "") << "run with UPDATE_EXPECTED=1";
}

}  // namespace
}  // namespace halfstep
