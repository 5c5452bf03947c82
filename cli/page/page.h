// The report as one HTML page that needs nothing else.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "compiler/inspect/inspection.h"

namespace halfstep {

// What a run measured of tensors' ranges, as `doctor` writes it: {"tensors": [{"node": name, "direction":
// "forward"|"backward", "low": {share by name}, "exponents": [counts], "first_exponent": number}]}. Members that are
// missing or others are passed over. Error if the file cannot be read or is no JSON.
nlohmann::json read_evidence(const std::filesystem::path& path);

// `evidence`: as read_evidence gives it; null: none.
std::string inspection_page(const Inspection& inspection, const nlohmann::json& evidence);

}  // namespace halfstep
