// Keys that were given and change nothing beside the others.
#pragma once

#include <string>
#include <vector>

#include "compiler/recipe.h"

namespace halfstep {

// A sentence each: "momentum has no effect: optimizer is adam".
std::vector<std::string> idle_keys(const Recipe& recipe);

}  // namespace halfstep
