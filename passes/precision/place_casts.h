// Moves casts over movement ops, to where less is moved or the stored value is low:
//
//   %1 = transpose(%w) : f32                       %1 = cast(%w) {to=f16}
//   %2 = cast(%1) {to=f16}                   ->    %2 = transpose(%1) : f16
//
//   %1 = cast(%x) {to=f32}                         %1 = reshape(%x) : f16
//   %2 = reshape(%1) : f32                   ->    %2 = cast(%1) {to=f32}
//
// A narrowing cast rises, a widening one sinks; one cast per value and type is left, equal nodes being one. Rises as
// far as parameters, which bind_arenas then reads from the low copy, so it runs before that and again at the end. No
// value changes.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph place_casts(const Graph& graph);

}  // namespace halfstep
