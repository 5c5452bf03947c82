// The structure of a model, before anything in it is given a meaning.
#pragma once

#include <vector>

#include "base/error.h"
#include "frontend/onnx/model_proto.h"

namespace halfstep {

using NodeList = google::protobuf::RepeatedPtrField<onnx::NodeProto>;

// The nodes that the outputs depend on, in an order of use.
std::vector<int> needed_in_order(const onnx::GraphProto& graph);

// Adds every problem found: opset versions, an empty graph, names defined twice or nowhere, cycles, sparse tensors.
void validate_model(const onnx::ModelProto& model, Problems& problems);

// The same for a function's nodes whose attributes, and so their subgraphs, are those of one call.
void validate_body(const onnx::FunctionProto& function, const NodeList& nodes, Problems& problems);

struct NodeOrder {
  std::vector<int> order;   // every operand's node before its use; the file's order where that is such an order
  std::vector<int> cyclic;  // nodes on a cycle, which `order` lacks with all that depends on them
};
NodeOrder order_nodes(const NodeList& nodes);

}  // namespace halfstep
