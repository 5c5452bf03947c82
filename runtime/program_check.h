// check(Program) for callers that know better names for buffers and steps than their numbers: the parser has lines.
#pragma once

#include <functional>
#include <string>

#include "runtime/program.h"

namespace halfstep {

struct PlaceNames {
  std::function<std::string(size_t index)> buffer, step;
};

void check(const Program& program, const PlaceNames& names);

}  // namespace halfstep
