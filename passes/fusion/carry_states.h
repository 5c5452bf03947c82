// A call that makes the new value of a state of one element hands the old one on to those that read it later:
//
//   %3, %4 = fused(%g, %scale) {...}                %3, %4, %5 = fused(%g, %scale) {... output "2" = %1 }
//   %6 = fused(%p, %3, %scale) {...}          ->    %6 = fused(%p, %3, %5) {...}
//   output "scale" = %scale                         output "scale" = ... of its own, the same
//   update %scale = %4                              update %scale = %4
//
// The new value is then written over the old one at once, where it would wait for its readers and be copied: calls of
// their own, the last one behind everything else, as a step of microseconds feels. Runs last on the fused graph, whose
// order of calls says what is later. Leaves states alone that nobody reads later, and those that no kernel makes.
#pragma once

#include "ir/graph.h"

namespace halfstep {

Graph carry_states(const Graph& graph);

}  // namespace halfstep
