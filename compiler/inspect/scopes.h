// Where a node stands in its model: the modules that it belongs to.
#pragma once

#include <string>

namespace halfstep {

// "encoder/layer.0/attention" of the module "encoder.layer.0.attention", or where that is unknown of a name that is a
// path, "/encoder/layer.0/attention/MatMul". Numbers join what they count. Empty: none.
std::string scope_of(const std::string& name, const std::string& module);

}  // namespace halfstep
