// Reverse-mode differentiation of measure "loss", by ir/gradients.h:
//
//   %y = matmul(%x, %w)                    output gradient "fc.weight" = matmul(%x, %dy) {transpose_a=1}
//   output measure "loss" = f(%y)   ->     output measure "loss" = f(%y)
//
// adds, for each parameter leaf, its gradient in f32 and in the layout in which it is stored, multiplied by the loss
// scale and divided by the number of accumulated batches; where labels can be ignored or weigh
// as their classes do, each of these counts by the share of its labels. Runs after autocast, so that backward nodes
// inherit its precision, and before add_update, which consumes the gradients. Of values that mark_taps marked it adds
// the gradients beside them. Of several losses with a backward each, gradients are those of each, multiplied by its
// weight and its own scale.
#pragma once

#include "ir/graph.h"
#include "passes/training/loss_scaling.h"

namespace halfstep {

struct DifferentiateOptions {
  LossScaling scaling{.mode = LossScaleMode::none};
  int64_t accumulation = 1;  // batches whose mean gradient makes a step
};

// Error naming every op between a parameter and the loss that has no gradient, and why.
Graph differentiate(const Graph& graph, const DifferentiateOptions& options = {});

}  // namespace halfstep
