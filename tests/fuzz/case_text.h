// A case as text, for tests/fuzz/cases/*.ir:
//
//   // values w0: grid 17
//   graph fuzz { ... }
#pragma once

#include <string>
#include <string_view>

#include "tests/fuzz/check.h"

namespace halfstep::fuzz {

std::string print_case(const FuzzCase& fuzz_case);
FuzzCase parse_case(std::string_view text);  // Error

}  // namespace halfstep::fuzz
