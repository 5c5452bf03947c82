// What `inspect --parameters` prints.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "compiler/inspect/parameters.h"

namespace halfstep {

// A row for each parameter, and totals, for lines of `columns`; 0: of any length.
std::string parameters_text(const ParameterReport& report, size_t columns);
// docs/schemas/parameters.schema.json.
nlohmann::json parameters_json(const Recipe& recipe, const ParameterReport& report);

}  // namespace halfstep
