// The names of branches, loop bodies and function bodies, made apart: what two of them define under one name are two
// things, as are a weight of a branch and a later value of the graph around it.
#pragma once

#include <map>
#include <string>

#include "frontend/onnx/model_proto.h"

namespace halfstep {

// Gives every value and initializer of a subgraph whose name the model defines elsewhere too the name
// "NODE/ATTRIBUTE/NAME", unique in the model. Returns the old name of each new one. Names of the main graph stay.
using LocalNames = std::map<std::string, std::string>;
LocalNames separate_local_names(onnx::ModelProto& model);

// Gives the names back that the file has.
void restore_local_names(onnx::ModelProto& model, const LocalNames& names);

}  // namespace halfstep
