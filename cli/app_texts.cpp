#include "cli/app_texts.h"

#include <algorithm>

#include "training/recipe_keys.h"

namespace halfstep {
namespace {

bool is_recipe_key(const CLI::Option& option) {
  return std::ranges::any_of(option.get_lnames(), [](const std::string& name) { return find_key(name) != nullptr; });
}

OptionText text_of(const CLI::Option& option) {
  OptionText text{.help = option.get_description()};
  for (const std::string& name : option.get_snames()) text.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) text.names.push_back("--" + name);
  text.unit = option.get_expected_max() == 0 ? "" : option.get_type_name();
  text.unit.erase(std::min(text.unit.find(':'), text.unit.size()));  // of a validator
  if (is_recipe_key(option)) text.group = option.get_group();
  return text;
}

}  // namespace

ProgramText text_of(const CLI::App& app, const std::string& notes) {
  ProgramText program{.name = app.get_name(),
                      .about = app.get_description(),
                      .operand = "MODEL",
                      .keys = "Of recipes (TOML), and options of the commands that read them.",
                      .notes = notes};
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    CommandText row{.name = command->get_name(), .help = command->get_description()};
    for (const CLI::Option* option : command->get_options()) {
      if (option->get_positional())
        row.takes_file |= option->get_type_name() != "TEXT";
      else if (!option->get_group().empty())  // those that --help lists
        row.options.push_back(text_of(*option));
    }
    if (row.name == "completion") row.takes_file = false, row.operands = {"bash", "zsh", "fish"};
    program.commands.push_back(std::move(row));
  }
  return program;
}

}  // namespace halfstep
