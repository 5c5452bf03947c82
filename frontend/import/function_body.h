// The body of a function of the model's, as one call of it has it.
#pragma once

#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/validate.h"

namespace halfstep {

// With the attributes of the call, or the function's own defaults, in the places of those that it refers to.
NodeList body_of_call(const onnx::FunctionProto& function, const onnx::NodeProto& call);

}  // namespace halfstep
