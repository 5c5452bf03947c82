// What commands print about a compiled step.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "driver/compile.h"
#include "driver/recipe.h"

namespace halfstep {

// One row per forward node: name, operator, operand / accumulator / result type, reason.
std::string precision_table(const AutocastReport& report);
nlohmann::json precision_json(const AutocastReport& report);
// "9 nodes compute in f16, 4 in f32".
std::string precision_summary(const AutocastReport& report);
std::string pass_times_table(const CompileReport& report);
// Compile time, steps, planned memory.
std::string compile_summary(const CompileReport& report);
nlohmann::json compile_json(const CompileReport& report);

}  // namespace halfstep
