// A training model's nodes as inference has them.
#pragma once

#include "base/error.h"
#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {

// In the graph, its branches and the local functions: batch norms use their statistics; dropouts and stochastic depth
// are left out, their readers read what they would drop from (or a node Identity, where their result is an output).
// A statistic that is read elsewhere becomes a problem. How many dropouts were left out stands in metadata_props.
void make_inference(onnx::ModelProto& model, const TensorReader& reader, Problems& problems);
// What make_inference left out of this file; 0: nothing, or it is none of ours.
int64_t dropouts_left_out(const onnx::ModelProto& model);

}  // namespace halfstep
