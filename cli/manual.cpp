#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <vector>

#include "base/version.h"
#include "cli/command_texts.h"

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

std::string item(const OptionText& option) {
  std::string names;
  for (const std::string& name : option.names) names += (names.empty() ? "" : ", ") + name;
  std::string text = ".TP\n\\fB" + troff(names) + "\\fR";
  if (!option.unit.empty()) text += " \\fI" + troff(option.unit) + "\\fR";
  return text + "\n" + troff(option.help) + "\n";
}

std::string capitals(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

}  // namespace

std::string manual_page(const ProgramText& program) {
  std::string text = fmt::format(".TH {} 1 \"\" \"halfstep {}\"\n.SH NAME\n{} \\- {}\n", troff(capitals(program.name)),
                                 version(), troff(program.name), troff(program.about));
  text += fmt::format(".SH SYNOPSIS\n.B {}\n\\fICOMMAND\\fR [\\fI{}\\fR] [\\fIOPTIONS\\fR]\n.SH COMMANDS\n",
                      troff(program.name), program.operand);
  std::map<std::string, std::vector<const OptionText*>> groups;  // the keys of all commands, once
  std::vector<std::string> order;
  std::set<std::string> told;
  for (const CommandText& command : program.commands) {
    text += fmt::format(".SS {}\n{}\n", troff(command.name), troff(command.help));
    for (const OptionText& option : command.options) {
      if (std::ranges::find(option.names, "--help") != option.names.end()) continue;
      if (option.group.empty()) {
        text += item(option);
      } else if (told.insert(option.names.front()).second) {
        if (!groups.contains(option.group)) order.push_back(option.group);
        groups[option.group].push_back(&option);
      }
    }
  }
  text += ".SH KEYS\n" + troff(program.keys) + "\n";
  for (const std::string& group : order) {
    text += fmt::format(".SS {}\n", troff(group));
    for (const OptionText* option : groups.at(group)) text += item(*option);
  }
  return text + ".SH NOTES\n.nf\n" + troff(program.notes) + ".fi\n";
}

}  // namespace halfstep
