// A recipe's groups of parameters, for the passes and for the runs.
#pragma once

#include <vector>

#include "passes/training/bind_arenas.h"
#include "program/notes.h"
#include "training/recipe.h"

namespace halfstep {

// Error naming each group whose optimizer or rate makes no sense beside the recipe's.
std::vector<ParameterGroup> parameter_groups(const Recipe& recipe);

// What runs are told of the rates of a layout; none where these are simply the recipe's.
std::vector<RateNote> rate_notes(const Recipe& recipe, const ArenaLayout& layout);

}  // namespace halfstep
