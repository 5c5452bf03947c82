// Takes the arenas apart again, for a step that other engines run (export --training-graph):
//
//   %p = state() {name="parameters", role="slot"} : f32[1024]         %w = state() {name="fc.weight"} : f32[32,10]
//   update %p = %p - %lr * %g                                   ->     update %w = %w - %lr * %gw
//
// Every parameter and every slot of it ("momentum/fc.weight") becomes a state with the shape of its ONNX initializer;
// what is computed on arenas is computed on their slices, and a low copy is a cast of the weight. Runs after
// add_update, which knows arenas alone, and before everything that fuses or reorders their nodes. Leaves the rest as
// it is; steps that this machine runs keep their arenas.
#pragma once

#include "passes/training/bind_arenas.h"

namespace halfstep {

Graph unbind_arenas(const Graph& graph, const ArenaLayout& layout);

}  // namespace halfstep
