// Losses, one row each: what they take of an output and of its labels, the recipe's keys that they read, and the
// formula of those that are taken element by element. The recipe reads the keys, attach_loss makes nodes of the
// formula; what follows (labels in the data and their range, remarks about keys without effect, docs/losses.md) reads
// the row.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/terms.h"

namespace halfstep {

// Values of the keys that are given, by name; of a key with one value a list of one.
using LossParameters = std::map<std::string, std::vector<double>, std::less<>>;

// What an element's loss is computed with, in f32.
class LossContext : public TermContext {
 public:
  virtual Term output() = 0;
  virtual Term target() = 0;
  virtual double parameter(std::string_view name) const = 0;
  virtual bool given(std::string_view name) const = 0;
  // Of a list: the one value, or that of the element's class.
  virtual Term by_class(std::string_view name) = 0;
};

// A key of the recipe and of a [[loss]]; losses that read it share its range.
struct LossKey {
  std::string_view name;
  std::string_view meaning;
  std::optional<double> value = 0;  // where it is not given; nullopt: it is then no matter
  double least = 0, most = std::numeric_limits<double>::infinity();
  enum Kind : uint8_t { number, whole, yes_or_no, list } kind = number;
};

struct LossFunction {
  std::string_view name;
  std::vector<std::string_view> aliases;
  std::string_view meaning;
  // What the output holds. A softmax, its logarithm or a sigmoid at the end of the model is looked through where the
  // loss takes what is behind it.
  enum Scores : uint8_t {
    class_logits,          // [N, ..., classes, ...]
    class_log_likelihood,  // the same, their logarithms of a softmax
    logits,                // one for each label
    numbers,               // of any shape
    log_likelihood,        // of any shape
    own_loss,              // f32[], or f32[N] whose mean is taken
  } scores = numbers;
  // What it is compared with: an input "labels" i64 of the output's shape without its classes, "labels" f32 of its
  // shape from 0 to 1, or "targets" f32 of its shape.
  enum Labels : uint8_t { classes, yes_or_no, targets, none } labels = targets;
  std::vector<std::string_view> keys;
  Term (*element)(LossContext&) = nullptr;  // absent: over classes, or the model's own
  // The loss is the mean over samples of: the mean over a sample's elements, or their sum.
  enum Sample : uint8_t { mean, sum } sample = mean;

  bool reads(std::string_view key) const;
};

std::span<const LossFunction> loss_functions();
const LossFunction* find_loss(std::string_view name);  // by name or alias; nullptr: there is none
std::span<const LossKey> loss_keys();
const LossKey* find_loss_key(std::string_view name);  // nullptr: there is none
// Every name and alias, separated by `separator`.
std::string loss_names(std::string_view separator);

// One loss and the output that it is taken of.
struct OutputLoss {
  std::string kind = "softmax_cross_entropy";  // a row's name
  std::string output = {};                     // empty: the model's only output
  std::string labels = {};                     // the input of labels or targets; empty: "labels", "targets"
  // Negative: from the end. nullopt: 1, or the last axis of [N, S, V] where the model takes token ids.
  std::optional<int64_t> class_axis = std::nullopt;
  std::optional<int64_t> ignore_index = std::nullopt;
  LossParameters parameters = {};
  friend bool operator==(const OutputLoss&, const OutputLoss&) = default;
};

// One of several.
struct LossTerm {
  std::string name = {};  // empty: the output's
  double weight = 1;      // of its mean in the sum; 0: it is only measured
  OutputLoss loss = {};
  friend bool operator==(const LossTerm&, const LossTerm&) = default;
};

const LossFunction& function_of(const OutputLoss& loss);
// Of one value that the loss reads: as given, or its default.
double value_of(const OutputLoss& loss, std::string_view key);
std::string label_input(const OutputLoss& loss);  // "" where the model computes the loss

// What the values of its labels or targets may be, beside an ignored label; of classes [0, their count).
struct LabelBounds {
  double least = -std::numeric_limits<double>::infinity(), most = std::numeric_limits<double>::infinity();
  friend bool operator==(const LabelBounds&, const LabelBounds&) = default;
};
std::optional<LabelBounds> label_bounds(const OutputLoss& loss);  // nullopt: any number, or classes

// Error naming every key whose values do not go with each other or with the loss.
void check_parameters(const OutputLoss& loss);

}  // namespace halfstep
