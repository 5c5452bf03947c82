// The nodes that PyTorch's exporters write for one scaled_dot_product_attention. They multiply both sides of the
// scores' product by the same number, a root of the scale, which hardly anyone writes by hand:
//
//   softmax((q * s) @ (k * s) + mask) @ v
//
// Its autocast decides about them as about one operator.
#pragma once

#include <set>
#include <string>

#include "ir/graph.h"

namespace halfstep {

// Their names in `imported`, the model as the file has it.
std::set<std::string> written_attention(const Graph& imported);

}  // namespace halfstep
