// The command line: what was asked for, and the help texts.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"

namespace halfstep {

struct CommandLine {
  std::string command;          // "train"
  std::string model_or_recipe;  // empty: the command takes none
  CommandOptions options;
  std::vector<std::pair<std::string, std::string>> keys;  // of the recipe, in the order given
};

// nullopt: help or the version was asked for, and printed.
std::optional<CommandLine> parse_command_line(int argc, const char* const* argv);

// The recipe file, if there is one, with the keys of the command line over it.
Recipe recipe_of(const CommandLine& line);

}  // namespace halfstep
