// Makes a training step of a differentiated graph: unscale, overflow check, clipping, the optimizer and the loss
// scale's own update, all as ordinary nodes on flat arenas:
//
//   output gradient "w" = %dw      ->     %g = concat(%dw, ...) : f32[P]       %ok = all(is_finite(%g))
//                                         update "parameters" = select(%ok, %p - lr * %g / scale, %p)
//
// A step that overflowed changes nothing but the loss scale: also the model's own state updates (running statistics)
// are held back. Formulas are those of torch.optim, torch.nn.utils.clip_grad_norm_ and torch.amp.GradScaler. Runs after
// bind_arenas. Consumes the gradients; keeps measures "loss", "correct" and "counted", drops the other outputs,
// and what tap_values reads, and adds "overflow" and "loss_scale" where there is a loss scale. With accumulation a
// second graph only adds up gradients; where labels can be ignored, also the shares that count, so that all of the step
// weigh alike. Losses with a backward each are unscaled, weighed and added in f32; each moves its own scale by its own
// overflows, and a step is skipped if any overflows (Apex's num_losses).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/optimizers.h"
#include "passes/training/bind_arenas.h"
#include "passes/training/loss_scaling.h"

namespace halfstep {

struct OptimizerOptions {
  std::string name = "sgd";         // of a row of base/optimizers.h
  HyperParameters parameters = {};  // of the row, where they are not its own values
  double weight_decay = 0;
  // Of plan_arenas: parameters without it, with a decay or a rate of their own, trained from an epoch on.
  std::vector<std::string> no_decay = {};
  std::vector<ParameterGroup> groups = {};
  std::vector<std::pair<std::string, int64_t>> unfreeze = {};
  // Of the unscaled gradient, in this order: of each output's weights by their own norm, of each element, of the whole.
  std::optional<double> clip_adaptive = std::nullopt, clip_value = std::nullopt, clip_norm = std::nullopt;
  std::optional<double> ema = std::nullopt;  // the decay of a running mean of the weights
  LossScaling scaling = {};
  int64_t accumulation = 1;  // batches whose mean gradient makes a step
  // Without master weights: after each update they are rounded to this type.
  std::optional<DType> weights = std::nullopt;
};

// How the parameters lie for it.
ArenaOrder arena_order(const OptimizerOptions& options);

// The step itself, graph "train". With accumulation it adds slot "gradients" to its own and clears it.
Graph add_update(const Graph& graph, const OptimizerOptions& options, const ArenaLayout& layout);
// Graph "accumulate": adds this batch's gradients to slot "gradients".
Graph add_accumulation(const Graph& graph, const OptimizerOptions& options, const ArenaLayout& layout);

// Graph "gradients": leaves the gradients of this batch's loss, unscaled and whatever part of a step it is, in slot
// "gradients" and changes nothing else. Keeps every other output, so that another framework's values can be held
// against all of them.
Graph add_gradients(const Graph& graph, const OptimizerOptions& options, const ArenaLayout& layout);

// Names of the states of `graph` that are laid out like the parameters.
std::vector<Name> arena_states(const Graph& graph, const ArenaLayout& layout);
// Initial contents of the states that do not start at zero and are no weights.
NamedTensors initial_states(const OptimizerOptions& options);

}  // namespace halfstep
