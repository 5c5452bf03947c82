// The part of `recognise` that knows softmax cross-entropy with integer labels, by rows of any axes:
//
//   %1 = log_softmax(%x) {axis=1}                           %2 = softmax_cross_entropy(%x, %labels)
//   %2 = gather(reshape(%1), %labels + %first_of_row)  ->   %3 = neg(%2)
//   %3 = log(sum(exp(%x))) - gather(%x, ...)                %3 = softmax_cross_entropy(%x, %labels)
//
// The element of a row may be gathered, or be the sum of the row times a one-hot of the labels. Reads and writes the
// row once, in f32, and its gradient is softmax minus one-hot. Labels are numbers of classes; what is around it (signs,
// means, masks, weights) stays.
#pragma once

#include "passes/rewrite/rules.h"

namespace halfstep {

Value recognise_loss(const RuleContext& c);

}  // namespace halfstep
