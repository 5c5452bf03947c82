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
//
// Of mixed samples (mixup, cutmix) "loss" is share * L(labels) + (1 - share) * L(labels of the batch in reverse), where
// share is the step input "mix_share", and "correct" is not there, since a guess has two labels. The rows, which
// evaluation reads, are those of samples that are not mixed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/losses.h"
#include "ir/graph.h"

namespace halfstep {

struct LossOptions : OutputLoss {
  // A language model's logits are the largest of its values. The training graph drops those kept for evaluation where
  // the two part.
  enum ModelOutputs : uint8_t { kept, kept_for_evaluation, dropped } model_outputs = kept;
  std::vector<LossTerm> terms = {};  // several losses in place of the one. Two of them may have one label input
  // Each sample of a batch with the one that is as far from the batch's other end.
  enum Samples : uint8_t { apart, mixed } samples = apart;
};

// The terms with their names. Error if two have one.
std::vector<LossTerm> named_terms(const Graph& graph, const LossOptions& options);

// How many classes labels choose from; nullopt: the loss has no classes, or there are several losses. Error as
// attach_loss's.
std::optional<int64_t> class_count(const Graph& graph, const OutputLoss& loss);
std::optional<int64_t> class_count(const Graph& graph, const LossOptions& options);

// The axis they are on, from the front; nullopt and Error as before.
std::optional<int64_t> axis_of_classes(const Graph& graph, const LossOptions& options);
// That the numbers of a loss stand along which has one for each class; nullopt: it has none.
std::optional<int64_t> axis_of_lists(const Graph& graph, const OutputLoss& loss);

// Error if the output is missing, ambiguous or of a type the loss does not fit.
Graph attach_loss(const Graph& graph, const LossOptions& options, std::vector<std::string>* remarks = nullptr);

}  // namespace halfstep
