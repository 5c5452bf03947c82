// Where a node stands in its model: the modules that it belongs to.
#pragma once

#include <string>
#include <vector>

namespace halfstep {

// "encoder/layer.0/attention" of the module "encoder.layer.0.attention", or where that is unknown of a name that is a
// path, "/encoder/layer.0/attention/MatMul". Numbers join what they count. Empty: none.
std::string scope_of(const std::string& name, const std::string& module);

// Where neither is known of any node, the weights' names tell: `weights` has for each node, in the file's order, that
// of a weight that it reads, or "". A node with "encoder.0.fc.weight" stands in "encoder.0/fc", one between two such in
// what is around both.
std::vector<std::string> scopes_of_weights(const std::vector<std::string>& weights);

}  // namespace halfstep
