// Recipes as TOML files.
#pragma once

#include <filesystem>
#include <string>

#include "training/recipe.h"

namespace halfstep {

// Reads a TOML file over `recipe`. All problems at once, with the file's name and lines. Relative paths in it are
// relative to that file.
void read_recipe(Recipe& recipe, const std::filesystem::path& path);
// The same from text; `source` is named in errors and relative paths are relative to `base`.
void read_recipe_text(Recipe& recipe, const std::string& text, const std::string& source,
                      const std::filesystem::path& base);
// The recipe as TOML with absolute paths, for the run's records.
std::string to_toml(const Recipe& recipe);

}  // namespace halfstep
