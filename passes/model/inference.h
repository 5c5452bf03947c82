// The evaluation graph: what the model computes for data it does not learn from.
//
//   %y, %m, %v = batch_norm(%x, ...)            %y = (%x - %running_mean) * ...
//   %z = dropout(%y, %seed, %iteration)    ->
//   update %running_mean = ...                  output "logits" = %y
//
// The rows' `inference` column says what stands for an op. State updates go; so do the outputs "loss", "correct" and
// "counted" of a whole batch, since evaluation reads the rows, and inputs that nothing reads any more. Runs on the
// forward graph, after autocast, so that evaluation has the precision of training.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph inference(const Graph& graph);

}  // namespace halfstep
