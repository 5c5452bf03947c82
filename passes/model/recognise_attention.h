// The part of `recognise` that is an algorithm: a product of a softmax and a value, whose scores are a product, is
// attention. Scales may stand anywhere on the way, before or after movements; masks may be added or selected, also
// causal ones and several at once; the weights may be dropped out and guarded against rows without a visible key;
// heads may be one axis with the batch; repeated keys and values are read once (grouped queries). Masks keep their axes
// of size 1. An attention that the model has as one operator is simplified likewise.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph recognise_attention(const Graph& graph);

}  // namespace halfstep
