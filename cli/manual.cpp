#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/version.h"
#include "cli/command_texts.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

// Text as troff shows it: no escape, no request at the begin of a line.
std::string troff(const std::string& text) {
  std::string result;
  bool line_begins = true;
  for (const char c : text) {
    if (line_begins && (c == '.' || c == '\'')) result += "\\&";
    if (c == '\\')
      result += "\\e";
    else if (c == '-')
      result += "\\-";
    else
      result += c;
    line_begins = c == '\n';
  }
  return result;
}

std::string item(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : option.get_snames()) names += (names.empty() ? "-" : ", -") + name;
  for (const std::string& name : option.get_lnames()) names += (names.empty() ? "--" : ", --") + name;
  std::string unit = option.get_expected_max() == 0 ? "" : option.get_type_name();
  unit.erase(std::min(unit.find(':'), unit.size()));  // of a validator
  std::string text = ".TP\n\\fB" + troff(names) + "\\fR";
  if (!unit.empty()) text += " \\fI" + troff(unit) + "\\fR";
  return text + "\n" + troff(option.get_description()) + "\n";
}

bool is_recipe_key(const CLI::Option& option) {
  return std::ranges::any_of(option.get_lnames(), [](const std::string& name) { return find_key(name) != nullptr; });
}

}  // namespace

std::string manual_page(const CLI::App& app, const std::string& notes) {
  std::string text = fmt::format(".TH HALFSTEP 1 \"\" \"halfstep {}\"\n.SH NAME\nhalfstep \\- {}\n", version(),
                                 troff(app.get_description()));
  text += ".SH SYNOPSIS\n.B halfstep\n\\fICOMMAND\\fR [\\fIMODEL\\fR] [\\fIOPTIONS\\fR]\n.SH COMMANDS\n";
  std::map<std::string, std::vector<const CLI::Option*>> groups;  // the keys of all commands, once
  std::vector<std::string> order;
  std::set<std::string> told;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    text += fmt::format(".SS {}\n{}\n", troff(command->get_name()), troff(command->get_description()));
    for (const CLI::Option* option : command->get_options()) {
      if (option->get_positional() || option->get_group().empty()) continue;
      if (!is_recipe_key(*option)) {
        if (option->get_name() != "--help" && option->get_lnames() != std::vector<std::string>{"help"})
          text += item(*option);
      } else if (told.insert(option->get_lnames().front()).second) {
        if (!groups.contains(option->get_group())) order.push_back(option->get_group());
        groups[option->get_group()].push_back(option);
      }
    }
  }
  text += ".SH KEYS\nOf recipes (TOML), and options of the commands that read them.\n";
  for (const std::string& group : order) {
    text += fmt::format(".SS {}\n", troff(group));
    for (const CLI::Option* option : groups.at(group)) text += item(*option);
  }
  return text + ".SH NOTES\n.nf\n" + troff(notes) + ".fi\n";
}

}  // namespace halfstep
