// Nodes of a file that PyTorch's exporters write for one operator, about which its autocast decides as about one:
//
//   attention     softmax((q * s) @ (k * s) + mask) @ v: both sides multiplied by the same number, a root of the scale,
//   or
//                 the keys transposed with batch and heads as one axis. Hardly anyone writes that by hand
//   group_norm    reshape(norm(reshape(x))), the channels of the norm being groups of x's
#pragma once

#include <map>
#include <string>

#include "ir/graph.h"

namespace halfstep {

// The operator of ours by the names of such nodes in `imported`, the model as the file has it.
std::map<std::string, std::string> written_as_one(const Graph& imported);

// Whether `norm`, a group_norm, stands between two reshapes so, the second of which gives `result`.
bool normalises_groups(const Graph& graph, const Node& norm, const TensorType& result);

}  // namespace halfstep
