// Reverse-mode differentiation by the rows' vjp:
//
//   %y = matmul(%x, %w)    ->    %dw = matmul(%x, %dy) {transpose_a=1}
#pragma once

#include <span>

#include "ir/builder.h"

namespace halfstep {

// Composites without a vjp of their own are differentiated through their expansion: the graph with them expanded.
Graph expand_for_vjp(const Graph& graph);

// The cotangents of `sources`, given that of y; absent where y does not depend on the source. Several uses of a value
// add up in its type; for values computed of parameters and constants alone, in f32. Backward nodes carry the name of
// their forward node. Throws Error naming every op between a source and y that has no gradient, and why.
struct GradientRequest {
  Value y;
  Value cotangent;  // of y
  std::span<const Value> sources;
  std::string_view y_name, source_name;  // in errors: "the loss", "a parameter"
};
std::vector<Value> gradients(Builder& builder, const GradientRequest& request);

// The parameters that no gradient of an output reaches: unread, read for integers or booleans only, or behind
// functions whose derivative is zero.
std::vector<NodeId> parameters_without_gradient(const Graph& graph);

}  // namespace halfstep
