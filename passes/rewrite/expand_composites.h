// Replaces every composite op by its row's expansion into primitive ones:
//
//   %y = softmax(%x) {axis=1}     ->     %m = reduce_max(%x) {axes=[1]}
//                                        %e = exp(%x - %m)
//                                        %y = %e / reduce_sum(%e) {axes=[1]}
//
// Until here a composite is one op with one precision and one vjp; from here fusion wants to see its parts. Runs after
// everything that asks for composites: autocast, differentiate, inference. Leaves attention as a call where the target
// has a library for it (passes/model/choose_attention.h), and recurrent layers, which the import makes for such
// targets.
#pragma once

#include "ir/graph.h"

namespace halfstep {

enum class LibraryCalls : uint8_t { expand, keep_recurrent, keep };

Graph expand_composites(const Graph& graph, LibraryCalls calls = LibraryCalls::expand);

}  // namespace halfstep
