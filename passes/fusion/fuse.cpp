#include "passes/fusion/fuse.h"

#include "passes/fusion/fusion.h"

namespace halfstep {

Graph fuse(const Graph& graph) { return Fusion(graph).build(); }

}  // namespace halfstep
