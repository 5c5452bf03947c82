// Groups of parameters as one text: "parameters=head.*|neck.*,learning_rate=0.01;parameters=vectors,weight_decay=0",
// and epochs by pattern: "layer4.*=2,layer3.*=5".
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "training/recipe.h"

namespace halfstep {

// Error naming each group by its number from 1, and all that is unknown or no value of its key.
std::vector<RecipeGroup> read_groups(const std::string& text);
std::string write_groups(const std::vector<RecipeGroup>& groups);
// One group of read_groups's text. Error where a value holds what separates them.
std::string group_text(const std::vector<std::pair<std::string, std::string>>& keys);

// Between the patterns of a group.
inline constexpr char kBetweenPatterns = '|';

std::vector<UnfreezeRule> read_unfreeze(const std::string& text);
std::string write_unfreeze(const std::vector<UnfreezeRule>& rules);

}  // namespace halfstep
