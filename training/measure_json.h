// Measures in JSON: each value under its name, beside "per_class" and "confusion" where they are asked for.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "training/measures.h"

namespace halfstep {

// `prefix` stands before every key. A value that is not defined is null.
void put_measures(nlohmann::ordered_json& object, const MeasureReport& report, const std::string& prefix);

}  // namespace halfstep
