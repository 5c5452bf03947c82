// PTX as text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace halfstep {

// The module as up to `parts` modules of about the same size, each with everything that is not a kernel and some of the
// kernels, so that they can be compiled side by side. Variables of the module must be constants, for each part has its
// own. A module with debug sections stays whole.
std::vector<std::string> split_kernels(std::string_view ptx, size_t parts);

}  // namespace halfstep
