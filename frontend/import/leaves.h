// The leaves of an imported graph.
#pragma once

#include <map>
#include <set>
#include <string>

#include "frontend/import/input_shapes.h"
#include "ir/graph.h"

namespace halfstep {

// Initializers that repeat one value along axes, by name: their leaves have size 1 there.
using RepeatedLeaves = std::map<std::string, std::set<size_t>>;

// Of the initializer's leaf, before it is permuted.
TensorType leaf_type(const onnx::TensorProto& tensor, const RepeatedLeaves& repeated);

// A weight is one leaf: not repeated in one place and read as the file has it in another, and not trained as a
// parameter here and updated as a statistic there. Throws Error otherwise.
void check_leaves(const Graph& graph, const RepeatedLeaves& repeated, const InputShapes& shapes);

// Random numbers that were read as a dropout, or switched off, leave the inputs behind that they were drawn from.
// Without them.
Graph without_unread_step_inputs(const Graph& graph);

}  // namespace halfstep
