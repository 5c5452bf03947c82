// The casts of a training step: where autocast wants them, and what becomes of them in the kernels.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compiler/inspect/inspection.h"

namespace halfstep {

struct CastSources {
  const Graph& forward;     // with autocast's casts, placed
  const FusedCalls& calls;  // of the training step
  // Why a node of the file has the type it has.
  std::function<std::string(const std::string&)> reason;
};

// The forward graph's casts between f32 and the low type, those of their gradients, and beside them every cast that
// costs traffic. `in_kernels`: how many others there are, between what a kernel reads and computes with.
std::vector<InspectedCast> inspect_casts(const CastSources& sources, int64_t& in_kernels);

// Whether a value of this type may be cast by autocast.
bool is_cast_type(DType type);
// The weight, input or node of another name that gives `v`, to a node called `reader`.
std::string source_name(const Graph& graph, Value v, const std::string& reader);

}  // namespace halfstep
