#include "training/recipe_groups.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/printable.h"
#include "training/recipe_losses.h"

namespace halfstep {
namespace {

constexpr const char* kKeys[] = {"parameters", "learning_rate", "weight_decay", "optimizer"};

double non_negative(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value) || value < 0)
    throw Error(fmt::format("a number of at least 0 expected, found '{}'", text));
  return value;
}

void set(RecipeGroup& group, const std::string& name, const std::string& value) {
  if (std::ranges::find(kKeys, name) == std::end(kKeys)) {
    const std::string near = nearest(name, {std::begin(kKeys), std::end(kKeys)});
    throw Error(fmt::format("no key '{}'{}: there are {}", name, near.empty() ? "" : "; did you mean '" + near + "'?",
                            fmt::join(kKeys, ", ")));
  }
  try {
    if (name == "parameters") {
      group.parameters = split(value, kBetweenPatterns);
      if (std::ranges::find(group.parameters, "") != group.parameters.end() || group.parameters.empty())
        throw Error("patterns of names expected, found '" + value + "'");
    } else if (name == "optimizer") {
      group.optimizer = value;
    } else {
      (name == "learning_rate" ? group.learning_rate : group.weight_decay) = non_negative(value);
    }
  } catch (const Error& e) {
    throw Error(name + ": " + e.what());
  }
}

std::pair<std::string, std::string> key_and_value(const std::string& part) {
  const size_t equals = part.find('=');
  if (equals == std::string::npos) throw Error("KEY=VALUE expected, found '" + part + "'");
  return {part.substr(0, equals), part.substr(equals + 1)};
}

}  // namespace

std::vector<RecipeGroup> read_groups(const std::string& text) {
  std::vector<RecipeGroup> groups;
  Problems problems;
  for (const std::string& one : split(text, ';')) {
    RecipeGroup& group = groups.emplace_back();
    const std::string where = fmt::format("group {}: ", groups.size());
    if (one.empty()) {
      problems.add(where + "it is empty");
      continue;
    }
    for (const std::string& part : split(one, ',')) try {
        const auto [name, value] = key_and_value(part);
        set(group, name, value);
      } catch (const Error& e) {
        problems.add(where + e.what());
      }
    if (group.parameters.empty()) problems.add(where + "parameters are missing: patterns of names, such as 'head.*'");
    if (!group.learning_rate && !group.weight_decay && group.optimizer.empty())
      problems.add(where + "it changes nothing: give a learning_rate or a weight_decay");
  }
  problems.throw_if_any();
  return groups;
}

std::string write_groups(const std::vector<RecipeGroup>& groups) {
  std::string text;
  for (const RecipeGroup& group : groups) {
    std::vector<std::pair<std::string, std::string>> keys{
        {"parameters", fmt::format("{}", fmt::join(group.parameters, std::string(1, kBetweenPatterns)))}};
    if (group.learning_rate) keys.emplace_back("learning_rate", fmt::format("{}", *group.learning_rate));
    if (group.weight_decay) keys.emplace_back("weight_decay", fmt::format("{}", *group.weight_decay));
    if (!group.optimizer.empty()) keys.emplace_back("optimizer", group.optimizer);
    text += (text.empty() ? "" : ";") + keys_text(keys, "groups");
  }
  return text;
}

std::vector<UnfreezeRule> read_unfreeze(const std::string& text) {
  std::vector<UnfreezeRule> rules;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.rfind('=');
    UnfreezeRule rule;
    if (equals != std::string::npos && equals > 0) {
      const char *begin = part.data() + equals + 1, *end = part.data() + part.size();
      const auto [at, error] = std::from_chars(begin, end, rule.epoch);
      if (error == std::errc() && at == end && rule.epoch >= 1) rule.pattern = part.substr(0, equals);
    }
    if (rule.pattern.empty())
      throw Error("PATTERN=EPOCH expected, epochs from 1 on, such as layer4.*=2, found '" + part + "'");
    rules.push_back(std::move(rule));
  }
  return rules;
}

std::string write_unfreeze(const std::vector<UnfreezeRule>& rules) {
  std::string text;
  for (const UnfreezeRule& rule : rules)
    text += fmt::format("{}{}={}", text.empty() ? "" : ",", rule.pattern, rule.epoch);
  return text;
}

}  // namespace halfstep
