// Makes a failing case small: fewer outputs, nodes replaced by an operand or a constant, smaller axes, simpler values.
#pragma once

#include <functional>

#include "tests/fuzz/check.h"

namespace halfstep::fuzz {

// `fails` says whether a smaller case still shows the fault; at most `most` of them are tried.
FuzzCase shrink(FuzzCase failing, const std::function<bool(const FuzzCase&)>& fails, int most = 400);

}  // namespace halfstep::fuzz
