// Texts made of a program's table of commands: scripts that complete them in a shell, and the manual page.
#pragma once

#include <string>
#include <vector>

namespace halfstep {

struct OptionText {
  std::vector<std::string> names = {};  // "--learning_rate", "--lr", "-o"
  std::string unit = {};                // what the value looks like: PATH, NUMBER, a|b|c; empty: it takes none
  std::string help = {};
  std::string group = {};  // of keys of recipes, which the manual lists once for all commands
};

struct CommandText {
  std::string name, help;
  bool takes_file = false;                 // an operand that is a model, or what was made of one
  std::vector<std::string> operands = {};  // the choices of one that is none
  std::vector<OptionText> options = {};
};

struct ProgramText {
  std::string name, about;
  std::string operand;  // as the synopsis has it: MODEL
  std::string keys;     // what the manual says above the keys
  std::string notes;    // below the commands
  std::vector<CommandText> commands = {};
};

// For bash, zsh or fish: the commands, their options, and the values of options that have a choice or take a file.
std::string completion_script(const ProgramText& program, const std::string& shell);

// In troff, section 1.
std::string manual_page(const ProgramText& program);

}  // namespace halfstep
