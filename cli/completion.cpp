#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "cli/command_texts.h"
#include "training/recipe_losses.h"

namespace halfstep {
namespace {

struct Completed {
  std::vector<std::string> names;
  std::string help;
  std::vector<std::string> choices;
  enum Value : uint8_t { none, word, file } value = none;
};

struct Row {
  std::string name, help;
  bool takes_file = false;
  std::vector<std::string> operands;
  std::vector<Completed> options;
};

Completed completed(const OptionText& option) {
  Completed result{.names = option.names, .help = option.help, .choices = {}};
  if (option.unit == "PATH" || option.unit == "FILE" || option.unit == "DIR")
    result.value = Completed::file;
  else if (!option.unit.empty())
    result.value = Completed::word;
  const std::string list = option.unit.substr(0, option.unit.find(",..."));
  if (list.find('|') != std::string::npos && list.find_first_of("= ") == std::string::npos)
    result.choices = split(list, '|');
  return result;
}

std::vector<Row> rows_of(const ProgramText& program) {
  std::vector<Row> rows;
  for (const CommandText& command : program.commands) {
    Row row{command.name, command.help, command.takes_file, command.operands, {}};
    for (const OptionText& option : command.options) row.options.push_back(completed(option));
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<std::string> names_of(const std::vector<Row>& rows) {
  std::vector<std::string> names;
  for (const Row& row : rows) names.push_back(row.name);
  return names;
}

std::vector<std::string> names_of(const std::vector<Completed>& options) {
  std::vector<std::string> names;
  for (const Completed& option : options) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

// In names of a shell's functions.
std::string shell_function(const std::string& program) {
  std::string name = "_" + program;
  std::ranges::replace(name, '-', '_');
  return name;
}

std::string bash_script(const std::string& program, const std::vector<Row>& rows) {
  // An option means the same in every command that has it.
  std::map<std::vector<std::string>, std::set<std::string>> choices;
  std::set<std::string> files, words;
  for (const Row& row : rows)
    for (const Completed& option : row.options) {
      if (option.choices.empty() && option.value == Completed::none) continue;
      std::set<std::string>& names = !option.choices.empty()           ? choices[option.choices]
                                     : option.value == Completed::file ? files
                                                                       : words;
      names.insert(option.names.begin(), option.names.end());
    }
  const auto joined = [](const std::set<std::string>& names) { return fmt::format("{}", fmt::join(names, "|")); };
  const std::string function = shell_function(program);
  std::string text =
      fmt::format("# bash completion of {0}, written by `{0} completion bash`\n{1}() {{\n", program, function);
  text +=
      "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n";
  text += fmt::format("    COMPREPLY=($(compgen -W \"{} --help --version\" -- \"$cur\"))\n    return\n  fi\n",
                      fmt::join(names_of(rows), " "));
  text += "  case $prev in\n";
  for (const auto& [values, names] : choices)
    text += fmt::format("    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")); return ;;\n", joined(names),
                        fmt::join(values, " "));
  text += fmt::format("    {}) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n",
                      joined(files));
  text += fmt::format("    {}) return ;;\n  esac\n", joined(words));
  text += "  if [[ $cur == -* ]]; then\n    case $command in\n";
  for (const Row& row : rows)
    text += fmt::format("      {}) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n", row.name,
                        fmt::join(names_of(row.options), " "));
  text += "    esac\n    return\n  fi\n  case $command in\n";
  for (const Row& row : rows)
    if (!row.operands.empty())
      text += fmt::format("    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n", row.name,
                          fmt::join(row.operands, " "));
  return text + "    *) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n  esac\n}\n" +
         fmt::format("complete -F {} {}\n", function, program);
}

// Between single quotes.
std::string quoted(const std::string& text, const std::string& special) {
  std::string result;
  for (const char c : text) {
    if (c == '\'') {
      result += "'\\''";
      continue;
    }
    if (special.find(c) != std::string::npos) result += '\\';
    result += c == '\n' ? ' ' : c;
  }
  return result;
}

std::string zsh_script(const std::string& program, const std::vector<Row>& rows) {
  constexpr const char* kSpecial = "[]:\\";
  const std::string function = shell_function(program);
  std::string text = fmt::format("#compdef {0}\n# zsh completion of {0}, written by `{0} completion zsh`\n{1}() {{\n",
                                 program, function);
  text += "  local -a commands=(\n";
  for (const Row& row : rows) text += fmt::format("    '{}:{}'\n", row.name, quoted(row.help, kSpecial));
  text +=
      "  )\n  if ((CURRENT == 2)); then\n    _describe command commands\n    return\n  fi\n"
      "  local command=${words[2]}\n  shift words\n  ((CURRENT--))\n  case $command in\n";
  for (const Row& row : rows) {
    text += fmt::format("    {})\n      _arguments -S", row.name);
    for (const Completed& option : row.options)
      for (const std::string& name : option.names) {
        const std::string action = !option.choices.empty() ? fmt::format(":value:({})", fmt::join(option.choices, " "))
                                   : option.value == Completed::file ? ":file:_files"
                                   : option.value == Completed::word ? ":value:"
                                                                     : "";
        text += fmt::format(" \\\n        '{}[{}]{}'", name, quoted(option.help, kSpecial), action);
      }
    if (row.takes_file) text += " \\\n        '*:file:_files'";
    if (!row.operands.empty()) text += fmt::format(" \\\n        '1:shell:({})'", fmt::join(row.operands, " "));
    text += " ;;\n";
  }
  return text + "  esac\n}\n" + function + " \"$@\"\n";
}

std::string fish_script(const std::string& program, const std::vector<Row>& rows) {
  constexpr const char* kSpecial = "\\";
  std::string text = fmt::format(
      "# fish completion of {0}, written by `{0} completion fish`\ncomplete -c {0} -n __fish_use_subcommand -f\n",
      program);
  for (const Row& row : rows)
    text += fmt::format("complete -c {} -n __fish_use_subcommand -a {} -d '{}'\n", program, row.name,
                        quoted(row.help, kSpecial));
  for (const Row& row : rows) {
    const std::string begin = fmt::format("complete -c {} -n '__fish_seen_subcommand_from {}'", program, row.name);
    if (!row.operands.empty()) text += fmt::format("{} -f -a '{}'\n", begin, fmt::join(row.operands, " "));
    for (const Completed& option : row.options) {
      text += begin;
      for (const std::string& name : option.names)
        text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (!option.choices.empty())
        text += fmt::format(" -x -a '{}'", fmt::join(option.choices, " "));
      else if (option.value == Completed::file)
        text += " -r -F";
      else if (option.value == Completed::word)
        text += " -x";
      text += fmt::format(" -d '{}'\n", quoted(option.help, kSpecial));
    }
  }
  return text;
}

}  // namespace

std::string completion_script(const ProgramText& program, const std::string& shell) {
  const std::vector<Row> rows = rows_of(program);
  if (shell == "bash") return bash_script(program.name, rows);
  if (shell == "zsh") return zsh_script(program.name, rows);
  require(shell == "fish", "one of the three shells");
  return fish_script(program.name, rows);
}

}  // namespace halfstep
