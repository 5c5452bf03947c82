// The report as JSON: docs/schemas/inspect.schema.json.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "compiler/inspect/inspection.h"

namespace halfstep {

// Grows with every change that a reader could notice.
inline constexpr int kInspectionSchema = 1;

nlohmann::json inspection_json(const Inspection& inspection);

}  // namespace halfstep
