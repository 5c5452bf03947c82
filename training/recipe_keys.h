// The keys of recipes: a row each, which options of the command line, TOML files and the notes of compiled steps share.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "training/recipe.h"

namespace halfstep {

// One row per key: the only place that knows it.
struct RecipeKey {
  std::string name;  // in TOML and, with -- in front, on the command line
  std::string group;
  // compiled: part of the compiled step, so that another value needs another compilation. run: of each run.
  enum Scope : uint8_t { compiled, run } scope = run;
  std::string unit;  // what the value looks like: NUMBER, PATH, a|b|c; "NUMBER,...": a list
  std::string help;
  double least = 0, most = 0;                            // of a NUMBER
  std::function<void(Recipe&, const std::string&)> set;  // throws Error "<what was expected and found>"
  std::function<std::string(const Recipe&)> get;
};
std::span<const RecipeKey> recipe_keys();
// What the field also calls a key on a command line: lr is learning_rate. A name without one stays as it is.
std::string key_of_option(const std::string& option);
std::span<const std::pair<std::string_view, std::string_view>> key_aliases();  // alias, key
const RecipeKey* find_key(const std::string& name);                            // nullptr: there is none
// Sets one key; Error names the key, suggests the nearest one if it is unknown.
void set_key(Recipe& recipe, const std::string& key, const std::string& value);
// A value as it is seen from elsewhere: its paths, those to read from, are relative to `base`.
std::string from_folder(const std::filesystem::path& base, const RecipeKey& key, const std::string& value);

}  // namespace halfstep
