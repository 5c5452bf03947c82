// The verifier: what must hold of every graph between two passes.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// Throws InternalError naming the node if an operand does not stand before its use, a result type differs from the type
// rule, an attribute is unknown or missing, two leaves share a name, or an update's state is no state leaf.
void verify(const Graph& graph);

}  // namespace halfstep
