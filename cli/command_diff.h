// halfstep diff A B
#pragma once

#include "cli/command_line.h"

namespace halfstep {

// A side is a report that `inspect --json` wrote, an ONNX file, a recipe, a compiled step, a policy file or a preset's
// name; the last two are looked at on --model, or on the other side's model. Keys of the command line count for both.
ExitCode run_diff(const CommandLine& line);

}  // namespace halfstep
