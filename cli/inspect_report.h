// What `inspect` prints.
#pragma once

#include <string>

#include "cli/commands.h"
#include "compiler/inspect/inspection.h"

namespace halfstep {

// The tables that were asked for and the totals, for lines of `columns`; 0: of any length.
std::string inspection_text(const Inspection& inspection, const InspectOptions& options, size_t columns);

}  // namespace halfstep
