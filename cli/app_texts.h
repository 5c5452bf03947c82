// The executable's table of commands, as CLI11 holds it, as completions and the manual page read it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/command_texts.h"

namespace halfstep {

// `notes`: what stands below the commands in --help.
ProgramText text_of(const CLI::App& app, const std::string& notes);

}  // namespace halfstep
