// The names of branches, loop bodies and function bodies, made apart: what two of them define under one name are two
// things, as are a weight of a branch and a later value of the graph around it.
#pragma once

#include <map>
#include <string>

#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/onnx_model.h"

namespace halfstep {

// Gives every value and initializer of a subgraph whose name the model defines elsewhere too the name
// "NODE/ATTRIBUTE/NAME", unique in the model. Returns the old name of each new one. Names of the main graph stay, and a
// model in which none meet is not edited.
using LocalNames = std::map<std::string, std::string>;
LocalNames separate_local_names(OnnxModel& model);

// Gives the names back that the file has.
void restore_local_names(onnx::ModelProto& model, const LocalNames& names);

}  // namespace halfstep
