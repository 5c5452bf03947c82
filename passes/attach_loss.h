// Adds the loss to a model's output: the label input, the loss and the counts that training and evaluation report.
//
//   output "logits" = %y                                           f32[128,10]
// becomes
//   %l = input() {name="labels"} : i64[128]
//   %r = softmax_cross_entropy(%y, %l) : f32[128]
//   output "loss" = mean(%r)   output "correct" = sum(argmax(%y) == %l)   output "row_loss" = %r   output "row_correct"
//   = ...
//
// Runs before choose_layouts and autocast, which then place and type the loss like any other node. Rows are samples:
// for logits with further axes a row's loss and correctness are means over its positions. With ignore_index the loss is
// the mean over the labels that count. Keeps the model's own outputs, except one with a name above.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ir/graph.h"

namespace halfstep {

enum class LossKind : uint8_t {
  softmax_cross_entropy,  // input "labels" i64[N, positions...]
  mean_squared_error,     // input "targets" of the output's type
  from_graph,             // the output is the loss: f32[], or f32[N] whose mean is taken
};

struct LossOptions {
  LossKind kind = LossKind::softmax_cross_entropy;
  std::string output;      // empty: the model's only output
  int64_t class_axis = 1;  // negative: from the end
  std::optional<int64_t> ignore_index = std::nullopt;
};

// Error if the output is missing, ambiguous or of a type the loss does not fit.
Graph attach_loss(const Graph& graph, const LossOptions& options);

}  // namespace halfstep
