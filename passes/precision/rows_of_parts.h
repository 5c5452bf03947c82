// What a preset says of nodes that became part of others, where its source decides about each operator by itself:
//
//   %2 = mul(%0, 0.5)                     f16
//   ...                                   pow(%0, 3) in f32        all of it becomes %9 = gelu_tanh(%0)
//   %9 = mul(%2, %8)                      f32
//
// PyTorch has made each value of the file one after the other, and an assignment that is to be read beside PyTorch's
// says of each what it is there. What is computed is not affected.
#pragma once

#include <map>
#include <string>

#include "passes/precision/autocast.h"

namespace halfstep {

// Whether the preset's source decides so, and there is a low type.
bool has_rows_of_parts(const AutocastOptions& options);

// Rows of the nodes of `imported`, the model as the file has it. `as_one`: the operator that nodes were written for
// together, by their names (passes/model/written_as_one.h): its row decides.
AutocastReport rows_of_parts(const Graph& imported, AutocastOptions options,
                             const std::map<std::string, std::string>& as_one);

}  // namespace halfstep
