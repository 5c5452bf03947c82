// What a run left, as one HTML page that needs nothing else.
#pragma once

#include <string>

#include "cli/run_record.h"

namespace halfstep {

std::string report_page(const RunRecord& run);

}  // namespace halfstep
