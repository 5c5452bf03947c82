// Values cut into slices along an axis, and put together again.
#pragma once

#include <optional>
#include <vector>

#include "ir/op.h"

namespace halfstep {

class Builder;

// For each operand of a node the axis that `axis` of its result follows, slice by slice: by the op's resize rule, or
// what follows from its other columns. Absent: the slices depend on each other. Reshapes are not known here.
std::optional<OperandAxes> slicewise(const Graph& graph, const Node& node, size_t axis);

// The pieces one after the other, of `shape`: an arena, so that each can be computed in its place.
Value joined_flat(Builder& builder, const std::vector<Value>& pieces, const Shape& shape);

}  // namespace halfstep
