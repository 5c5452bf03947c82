// Adds the loss to a model's output: the label input, the loss and the counts that training and evaluation report.
//
//   output "logits" = %y                                           f32[128,10]
// becomes
//   %l = input() {name="labels"} : i64[128]
//   %r = softmax_cross_entropy(%y, %l) : f32[128]
//   output measure "loss" = mean(%r)      output measure "correct" = sum(argmax(%y) == %l)
//   output measure "row_loss" = %r        output measure "row_correct" = ...
//
// Runs before choose_layouts and autocast, which then place and type the loss like any other node. Rows are samples:
// for logits with further axes a row's loss and correctness are means over its positions. With ignore_index the loss is
// the mean over the labels that count, measures "counted" and "row_counted" are their share of a row's labels, and what
// is ignored adds 0 to the other measures. Where the output is a softmax, its logarithm or a sigmoid, cross-entropy
// takes the logits behind it, and `remarks` (may be nullptr) says so. Keeps the model's own outputs, or
// drops them. Of several losses "loss" is the weighted sum, and each has its measures as base/name.h's of_loss.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

enum class LossKind : uint8_t {
  softmax_cross_entropy,  // input "labels" i64[N, positions...]
  mean_squared_error,     // input "targets" of the output's type
  from_graph,             // the output is the loss: f32[], or f32[N] whose mean is taken
};

// One loss and the output that it is taken of.
struct OutputLoss {
  LossKind kind = LossKind::softmax_cross_entropy;
  std::string output = {};  // empty: the model's only output
  std::string labels = {};  // the input of labels or targets; empty: "labels", "targets"
  // Negative: from the end. nullopt: 1, or the last axis of [N, S, V] where the model takes token ids.
  std::optional<int64_t> class_axis = std::nullopt;
  std::optional<int64_t> ignore_index = std::nullopt;
  double label_smoothing = 0;  // of softmax_cross_entropy: this share of a label is spread over all classes
};

// One of several.
struct LossTerm {
  std::string name = {};  // empty: the output's
  double weight = 1;      // of its mean in the sum; 0: it is only measured
  OutputLoss loss = {};
};

struct LossOptions : OutputLoss {
  // A language model's logits are the largest of its values. The training graph drops those kept for evaluation where
  // the two part.
  enum ModelOutputs : uint8_t { kept, kept_for_evaluation, dropped } model_outputs = kept;
  std::vector<LossTerm> terms = {};  // several losses in place of the one. Two of them may have one label input
};

// The terms with their names. Error if two have one.
std::vector<LossTerm> named_terms(const Graph& graph, const LossOptions& options);
// "" where the model computes the loss.
std::string label_input(const OutputLoss& loss);

// How many classes labels choose from; nullopt: the loss has no classes, or there are several losses. Error as
// attach_loss's.
std::optional<int64_t> class_count(const Graph& graph, const OutputLoss& loss);
std::optional<int64_t> class_count(const Graph& graph, const LossOptions& options);

// The axis they are on, from the front; nullopt and Error as before.
std::optional<int64_t> axis_of_classes(const Graph& graph, const LossOptions& options);

// Error if the output is missing, ambiguous or of a type the loss does not fit.
Graph attach_loss(const Graph& graph, const LossOptions& options, std::vector<std::string>* remarks = nullptr);

}  // namespace halfstep
