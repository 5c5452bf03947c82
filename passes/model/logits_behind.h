// A model that ends in probabilities: what its last softmax, logarithm of one, or sigmoid is computed of.
//
//   %1 = softmax(%0) {axis=1}
//   %2 = reshape(%1) {shape=[8,10]}        ->        reshape(%0) {shape=[8,10]}
//
// Called by attach_loss: a loss of logits is exact where a logarithm of rounded probabilities is not.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "ir/builder.h"

namespace halfstep {

// The operand of the one of `functions` that `y` is, behind casts and movements, which are made of it anew; absent if
// `y` is none. `axis`: of y, along which a softmax must be; nullopt: along any.
Value operand_behind(Builder& builder, Value y, std::span<const std::string_view> functions,
                     std::optional<int64_t> axis);

}  // namespace halfstep
