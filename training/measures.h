// Measures of evaluation: what a model's outputs say of its labels, added up batch by batch. docs/measures.md is
// written from the rows.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.h"
#include "program/program.h"

namespace halfstep {

struct Tally;

// What a measure is of: several may hold.
enum Judges : uint8_t { kOfClasses = 1, kOfLabels = 2, kOfValues = 4 };

struct MeasureResult {
  double value = 0;                    // NaN where it is not defined
  std::vector<double> per_class = {};  // of a measure that each class has by itself
};

struct MeasureRow {
  std::string_view name;  // "f1_macro"; of "top" a number follows: "top5"
  uint8_t of;             // Judges
  uint8_t parts;          // of the tally: see measure_tally.h
  std::string_view definition, source;
  MeasureResult (*result)(const Tally& tally, int64_t number);
  std::string_view column = {};  // its name where it stands beside a class; empty: classes have none by themselves
  enum Better : uint8_t { larger, smaller } better = larger;
};
std::span<const MeasureRow> measure_rows();
// Of a name in the recipe: "f1", "top5", "box.mae". Error where there is none such.
const MeasureRow& measure_row(const std::string& name);

struct MeasureOptions {
  std::vector<std::string> names = {};  // "f1", "box.mae" of the loss 'box'
  bool per_class = false;
  std::vector<std::string> class_names = {};  // empty: numbers
};

struct MeasureValue {
  std::string name;  // as asked for, of several losses with the loss before it
  double value = 0;
};
// One output's classes, a row each.
struct ClassTable {
  std::string loss;
  std::vector<double> support;  // labels
  std::vector<std::pair<std::string, std::vector<double>>> columns;
};
struct Confusion {
  std::string loss;
  int64_t classes = 0;
  std::vector<int64_t> counts;  // [label, guess]
};
struct MeasureReport {
  std::vector<MeasureValue> values{};
  std::vector<ClassTable> tables{};
  std::vector<Confusion> confusions{};
  std::vector<std::string> class_names{};
  std::vector<std::string> remarks{};
  std::optional<double> find(std::string_view name) const;
};
// "cat", or the number of the class where it has no name.
std::string class_name(const std::vector<std::string>& names, int64_t index);
// A line for each class, with the number of classes that the file should have; 0: any.
std::vector<std::string> read_class_names(const std::string& path, int64_t classes);

// Whether evaluation has to give the model's outputs for them. Error naming each that is no measure or has no output
// that it can be of.
bool need_outputs(const std::vector<std::string>& names, std::span<const JudgedOutput> judged);

// What the measures of one evaluation add up.
class Measures {
 public:
  // Error naming each measure that is unknown, has no output that it can be of, or would keep too much of `samples`
  // samples (0: their number is not known yet).
  Measures(const MeasureOptions& options, const Program& evaluate, const StepNotes& notes, int64_t samples);
  ~Measures();
  Measures(Measures&&) noexcept;

  // The labels in a batch's staging memory, in the order that `add` wants them back.
  using Labels = std::vector<std::vector<std::byte>>;
  Labels labels(std::span<const std::span<std::byte>> staging) const;
  // Inputs of the program that hold labels which `add` reads.
  std::vector<std::string> label_inputs() const;
  // Of the values that `report` will have, of whatever samples.
  std::vector<std::string> names() const;
  // The first `rows` of a batch whose first sample is number `sample`.
  void add(const NamedTensors& outputs, const Labels& labels, int64_t rows, int64_t sample);
  // `losses` are the means of the judged outputs' losses, in their order.
  MeasureReport report(std::span<const double> losses) const;

 private:
  struct Judged;
  void bind(Judged& judged, const Program& evaluate, int64_t samples) const;
  std::vector<std::string> remarks(const Tally& tally, const std::string& output, std::span<const double> areas) const;

  MeasureOptions options_;
  std::vector<std::unique_ptr<Judged>> judged_;
};

}  // namespace halfstep
