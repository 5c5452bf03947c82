// Nodes of constants: what a kernel would compute of them.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "ir/graph.h"

namespace halfstep {

// The node's results. Integers are exact and wrap where they overflow, where the interpreter's doubles lose what is
// beyond 2^53; nothing where only these could tell.
std::optional<std::vector<Tensor>> fold_node(const Node& node, std::span<const Tensor* const> operands);

}  // namespace halfstep
