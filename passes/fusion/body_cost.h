// What computing a value again costs, for the choice between storing it and computing it in each reader.
#pragma once

#include "ir/graph.h"

namespace halfstep {

// Operations for each element of the node's result, beyond moving data; what is slow counts as several.
double body_cost(const Node& node);

}  // namespace halfstep
