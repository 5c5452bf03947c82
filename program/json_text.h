// JSON of a file: bounded in depth, since what reads and writes it calls itself, and without control characters in
// names.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace halfstep {

constexpr int kDeepestJson = 64;  // ours are four deep

// Discarded if it is no JSON; Error if it is nested more than `deepest` deep, or has such a name.
nlohmann::json parse_json(const std::string& text, int deepest = kDeepestJson);
// The same with any name: a token is one.
nlohmann::json parse_json_of_any_names(const std::string& text, int deepest = kDeepestJson);

// A string without control characters, which messages and reports print in lines; Error for one with.
std::string line_of(const nlohmann::json& text);
// Integers from 0 on under a key that is there: what else JSON calls a number does not become one. Error.
int64_t count_in(const nlohmann::json& object, const char* key);
std::vector<int64_t> counts_in(const nlohmann::json& object, const char* key);
// The same of any sign, of a value that has no key. Error.
int64_t integer_of(const nlohmann::json& value);

}  // namespace halfstep
