// Recurrent layers that read one another become one call, in which a library overlaps a layer's steps with those of the
// layer below:
//
//   %y, %h, %r = recurrent(%x, %w) {cell="gru", hidden=8}      ->    %m = concat(%w's matrices, %v's, %w's biases,
//   %v's) %z, %i, %s = recurrent(%y, %v) {cell="gru", hidden=8}            %z, %j, %s = recurrent(%x, %m) {...,
//   layers=2}
//                                                                    %i = slice(%j) {starts=[1,0,0]}
//
// Layers of one cell, width, number of directions and type, of which nothing but the layer above reads anything. Runs
// after autocast, which gives each layer its type by itself, and before differentiate, where the gradient of all layers
// is one call too.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph stack_recurrent(const Graph& graph);

}  // namespace halfstep
