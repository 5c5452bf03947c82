#include "program/json_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/printable.h"

namespace halfstep {

namespace {

nlohmann::json parse(const std::string& text, int deepest, bool any_names) {
  const auto within = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth > deepest) throw Error(fmt::format("JSON nested more than {} deep", deepest));
    const bool is_name = event == nlohmann::json::parse_event_t::key;
    if (is_name && !any_names && holds_control_character(parsed.get<std::string>()))
      throw Error(fmt::format("the name '{}' holds a control character", printable(parsed.get<std::string>())));
    return true;
  };
  return nlohmann::json::parse(text, within, false);
}

}  // namespace

nlohmann::json parse_json(const std::string& text, int deepest) { return parse(text, deepest, false); }
nlohmann::json parse_json_of_any_names(const std::string& text, int deepest) { return parse(text, deepest, true); }

std::string line_of(const nlohmann::json& text) {
  std::string line = text.get<std::string>();
  if (holds_control_character(line)) throw Error(fmt::format("'{}' holds a control character", printable(line)));
  return line;
}

namespace {

// What is parsed is unsigned where it is not negative; what a program made may be signed.
bool fits_integer(const nlohmann::json& value) {
  return value.is_number_unsigned() ? value.get<uint64_t>() <= INT64_MAX : value.is_number_integer();
}

std::string shown(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

int64_t count(const nlohmann::json& value, const char* key) {
  if (!fits_integer(value) || value.get<int64_t>() < 0)
    throw Error(fmt::format("'{}': an integer from 0 expected, found {}", key, shown(value)));
  return value.get<int64_t>();
}

}  // namespace

int64_t integer_of(const nlohmann::json& value) {
  if (!fits_integer(value)) throw Error(fmt::format("an integer of 64 bits expected, found {}", shown(value)));
  return value.get<int64_t>();
}

int64_t count_in(const nlohmann::json& object, const char* key) { return count(object.at(key), key); }

std::vector<int64_t> counts_in(const nlohmann::json& object, const char* key) {
  const nlohmann::json& list = object.at(key);
  if (!list.is_array()) throw Error(fmt::format("'{}': a list of integers expected", key));
  std::vector<int64_t> counts;
  for (const nlohmann::json& value : list) counts.push_back(count(value, key));
  return counts;
}

}  // namespace halfstep
