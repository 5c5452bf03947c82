// Stochastic depth as exporters write it: random numbers, compared, scaled and multiplied.
#pragma once

#include "frontend/import/node_context.h"

namespace halfstep {

// In training, x * (u < p) / p and x / p * floor(u + p), u uniform in [0, 1) and broadcast to x, are a dropout of x of
// ratio 1 - p that drops what shares one u together; so inference can leave it out. Absent: `x` times `y` is not that.
Value stochastic_depth(NodeContext& c, Value x, Value y);

}  // namespace halfstep
