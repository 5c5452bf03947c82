// The names of the ONNX operators that can be imported, for those who need no more of them.
#pragma once

#include <set>
#include <string>

namespace halfstep {

std::set<std::string> onnx_operator_names();  // with and without their domain, as reports print them

}  // namespace halfstep
