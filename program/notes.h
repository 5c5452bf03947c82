// What the compiler knew of a step and its runs want to know.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/losses.h"

namespace halfstep {

// One of several losses, whose weighted sum is the step's; its measures are those of base/name.h's of_loss.
struct LossNote {
  std::string name, labels;  // its own, and its label input: empty where the model computes it
  double weight = 1;
  int64_t classes = 0;                  // that its labels choose from; 0: they are none
  std::optional<int64_t> ignored = {};  // label
  std::optional<LabelBounds> bounds = {};
  friend bool operator==(const LossNote&, const LossNote&) = default;
};

// What the numbers of an output are, one of them or one for each class or label.
enum class OutputMeaning : uint8_t {
  logits,               // of classes, of which one holds
  probabilities,        // the same behind a softmax
  log_probabilities,    // and its logarithm
  label_logits,         // of labels, each of which holds or not; above 0 it does
  label_probabilities,  // the same behind a sigmoid; above 0.5 it does
  values,               // what is predicted itself
};
std::string_view name(OutputMeaning meaning);
std::optional<OutputMeaning> parse_meaning(std::string_view name);

// An output that labels are compared with: one for each loss that reads some.
struct JudgedOutput {
  std::string loss = {};  // of several, its name; empty: there is one
  std::string output = {}, labels = {};
  OutputMeaning meaning = OutputMeaning::values;
  int64_t class_axis = 1;               // of classes and labels; beyond the output's axes: there is one label
  std::optional<int64_t> ignored = {};  // label
  bool squared = false;                 // the loss is the mean squared error
  bool smoothed = false;                // the loss is not the cross-entropy of the labels alone
  friend bool operator==(const JudgedOutput&, const JudgedOutput&) = default;
};

// Of parameters that share a learning rate: its full value where it is their own, and the epoch, from 1, before which
// it is 0.
struct RateNote {
  std::optional<double> learning_rate = {};
  int64_t from_epoch = 1;
  friend bool operator==(const RateNote&, const RateNote&) = default;
};

struct StepNotes {
  std::string compiler;                       // its version
  std::string host;                           // host_fingerprint() of the machine that compiled it; see save_compiled
  std::map<std::string, std::string> recipe;  // by key, with absolute paths
  int64_t accumulation = 1;                   // batches an optimizer step
  int64_t seed = 0;                           // of the recipe, as is the next
  double learning_rate = 0;
  std::optional<std::string> label_input =
      {};                                     // that the loss added to the model's; absent: the model computes its loss
  std::optional<int64_t> classes = {};        // of the model's output
  std::optional<int64_t> label_classes = {};  // where the recipe says that labels have fewer
  std::optional<int64_t> ignored_label = {};
  std::optional<LabelBounds> label_bounds = {};
  std::map<std::string, int64_t> table_rows = {};  // by input whose values choose rows of a table
  std::vector<LossNote> losses = {};               // where there are several
  std::vector<JudgedOutput> judged = {};           // by the losses, in their order
  std::vector<RateNote> rates = {};                // one for each of the step's, where they differ from the recipe's
  std::string preset;                              // of autocast, with its version: "torch 2.11"
  std::string missing_constants;  // of a step whose constants are zeros because their data was missing: what is missing
  std::string largest_tensors;    // in scratch, for the error of a device whose memory is too small
  friend bool operator==(const StepNotes&, const StepNotes&) = default;
};

}  // namespace halfstep
