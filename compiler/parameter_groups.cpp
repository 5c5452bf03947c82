#include "compiler/parameter_groups.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/optimizers.h"

namespace halfstep {

std::vector<ParameterGroup> parameter_groups(const Recipe& recipe) {
  const std::string_view rest = find_optimizer(recipe.optimizer)->rest;
  std::vector<ParameterGroup> groups;
  Problems problems;
  for (const RecipeGroup& group : recipe.groups) {
    ParameterGroup& added = groups.emplace_back();
    added.patterns = group.parameters, added.weight_decay = group.weight_decay;
    if (group.learning_rate) added.rate = ParameterGroup::own;
    if (group.learning_rate && recipe.learning_rate == 0)
      problems.add(
          fmt::format("group {}: learning_rate {} beside one of 0 for the rest, which schedules are a share of: "
                      "give the rest one, or freeze it",
                      groups.size(), *group.learning_rate));
    added.rest = !group.optimizer.empty() && group.optimizer == rest;
    if (!group.optimizer.empty() && group.optimizer != rest && group.optimizer != recipe.optimizer)
      problems.add(fmt::format("group {}: optimizer '{}': {}", groups.size(), group.optimizer,
                               rest.empty() ? "'" + recipe.optimizer + "' is that of all parameters: leave it out"
                                            : fmt::format("'{}' or '{}' expected", recipe.optimizer, rest)));
  }
  problems.throw_if_any();
  return groups;
}

std::vector<RateNote> rate_notes(const Recipe& recipe, const ArenaLayout& layout) {
  if (layout.rates == std::vector<ArenaRate>{{}}) return {};
  std::vector<RateNote> notes;
  for (const ArenaRate& rate : layout.rates) {
    notes.push_back({.from_epoch = rate.from_epoch});
    if (rate.group) notes.back().learning_rate = recipe.groups[*rate.group].learning_rate;
  }
  return notes;
}

}  // namespace halfstep
