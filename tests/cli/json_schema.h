// What stands against a JSON value by a JSON Schema, as far as the project's schemas use the language: type, enum,
// const, properties, required, additionalProperties, items, minimum, maximum, $ref into $defs. Another keyword is a
// problem too.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace halfstep::test {

std::vector<std::string> schema_problems(const nlohmann::json& schema, const nlohmann::json& value);

}  // namespace halfstep::test
