// Algebra as rules, to a fixed point: identities (x * 1, casts to the own type, a transpose of its inverse), folding of
// constants, dead code, and
//
//   %1 = matmul(%x, %dy) : f16                %2 = matmul(%x, %dy) {result="f32"} : f32
//   %2 = cast(%1) {to=f32}              ->    %3 = reshape(%2) : f32[n]
//   %3 = reshape(%2) : f32[n]
//
// which gives weight gradients, that end as flat pieces of the f32 arena, one rounding less and a copy less. No rule
// loses precision: f32 -> f16 -> f32 stays, and f16 arithmetic is not reassociated. Runs on the forward graph and again
// on each program's whole graph; equal nodes are already one by construction. Leaves outputs, updates and leaves alone.
#pragma once

#include <span>

#include "ir/graph.h"
#include "passes/rewrite/rules.h"

namespace halfstep {

Graph simplify(const Graph& graph);
// The rules themselves, for a pass that adds some of its own.
std::span<const Rule> simplify_rules();

}  // namespace halfstep
