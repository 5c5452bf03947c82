// The report as one HTML page that needs nothing else.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "compiler/inspect/inspection.h"

namespace halfstep {

// What `doctor --json` wrote: "tensors", and "findings" if there are any (docs/inspect.md). Members that are missing or
// others are passed over. Error if the file cannot be read or is no such JSON.
nlohmann::json read_evidence(const std::filesystem::path& path);

// `evidence`: as read_evidence gives it; an empty object: none.
std::string inspection_page(const Inspection& inspection, const nlohmann::json& evidence);

}  // namespace halfstep
