// Whether what a case computed is what the suite expects.
#pragma once

#include <map>
#include <string>

#include "ir/interpret.h"
#include "tests/conformance/suite.h"

namespace halfstep::conformance {

using Outputs = std::map<Name, InterpretedTensor>;

// "" if every output agrees, else what is wrong. Outputs of random operators need not be the suite's: they obey what
// the operator promises.
std::string disagreement(const SuiteCase& suite_case, const Outputs& found);

}  // namespace halfstep::conformance
