// Texts made of the table of commands: scripts that complete them in a shell, and the manual page.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace halfstep {

// For bash, zsh or fish: the commands, their options, and the values of options that have a choice or take a file.
std::string completion_script(const CLI::App& app, const std::string& shell);

// In troff, section 1; `notes`: what stands below the commands in --help.
std::string manual_page(const CLI::App& app, const std::string& notes);

}  // namespace halfstep
