// Groups of parameters as one text: "parameters=head.*|neck.*,learning_rate=0.01;parameters=vectors,weight_decay=0",
// and epochs by pattern: "layer4.*=2,layer3.*=5".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace halfstep {

// Parameters that are trained otherwise than the rest.
struct RecipeGroup {
  std::vector<std::string> parameters;  // patterns
  std::optional<double> learning_rate = {}, weight_decay = {};
  std::string optimizer = {};  // of a pair, the one for the rest
  friend bool operator==(const RecipeGroup&, const RecipeGroup&) = default;
};

// Weights that stay as they are before an epoch, counted from 1.
struct UnfreezeRule {
  std::string pattern = {};
  int64_t epoch = 1;
  friend bool operator==(const UnfreezeRule&, const UnfreezeRule&) = default;
};

// Error naming each group by its number from 1, and all that is unknown or no value of its key.
std::vector<RecipeGroup> read_groups(const std::string& text);
std::string write_groups(const std::vector<RecipeGroup>& groups);

// Between the patterns of a group.
inline constexpr char kBetweenPatterns = '|';

std::vector<UnfreezeRule> read_unfreeze(const std::string& text);
std::string write_unfreeze(const std::vector<UnfreezeRule>& rules);

}  // namespace halfstep
