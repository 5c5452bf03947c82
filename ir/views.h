// Nodes that only look at their operand's memory. Fusion leaves them alone, lowering gives them no memory of their own.
#pragma once

#include <optional>
#include <vector>

#include "ir/graph.h"
#include "ir/scalar.h"

namespace halfstep {

class Builder;

// A reshape, a slice of consecutive elements that begins at an aligned one, or an `after`.
bool is_view(const Graph& graph, const Node& node);
// x, which is not there before `event` is computed.
Value after(Builder& builder, Value x, Value event);
// What a call waits for that it does not read: the events before its operands.
std::vector<Value> awaited(const Graph& graph, const Node& call);
// Elements between the operand's first one and the view's.
int64_t view_offset(const Graph& graph, const Node& view);
// A concat of one-dimensional pieces along axis 0: an arena, whose pieces are written in place.
bool is_arena(const Node& node);
// The optional operands of a matrix product behind its factors: a vector that is added to each row, and a matrix that
// is added to all of it, and whose memory the result may take.
inline constexpr size_t kProductBias = 2, kProductAddend = 3;
inline Value optional_operand(const Node& node, size_t i) {
  return i < node.operands.size() ? node.operands[i] : Value{};
}
// A call of a library.
bool is_library(const Node& node);
// A scatter: it writes over its first operand's memory, or over a copy of it.
bool writes_in_place(const Node& node);
// What a scatter makes of an element and its update; absent: the update stands instead.
std::optional<ScalarOp> update_combine(const Node& scatter);

}  // namespace halfstep
