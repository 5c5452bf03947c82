// What a run learned of its data, as a checkpoint's manifest keeps it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "data/data_facts.h"

namespace halfstep {

nlohmann::json to_json(const DataFacts& facts);
// Error where it is none.
DataFacts data_facts_of(const nlohmann::json& json);

}  // namespace halfstep
