// Policy files as doctor writes them: docs/doctor.md. Made of a recipe's preset and rules, and what is denied beside.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "training/recipe.h"

namespace halfstep {

// `denied`: nodes and the reason of each. `remarks`: lines of comment at the head. `folder`: where the file will lie; a
// policy of the recipe's is extended by its path from there.
std::string policy_text(const Recipe& recipe, const std::vector<std::pair<std::string, std::string>>& denied,
                        const std::vector<std::string>& remarks, const std::filesystem::path& folder);

}  // namespace halfstep
