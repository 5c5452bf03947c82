#include "program/json_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/printable.h"

namespace halfstep {

nlohmann::json parse_json(const std::string& text, int deepest) {
  const auto within = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth > deepest) throw Error(fmt::format("JSON nested more than {} deep", deepest));
    if (event == nlohmann::json::parse_event_t::key && holds_control_character(parsed.get<std::string>()))
      throw Error(fmt::format("the name '{}' holds a control character", printable(parsed.get<std::string>())));
    return true;
  };
  return nlohmann::json::parse(text, within, false);
}

std::string line_of(const nlohmann::json& text) {
  std::string line = text.get<std::string>();
  if (holds_control_character(line)) throw Error(fmt::format("'{}' holds a control character", printable(line)));
  return line;
}

}  // namespace halfstep
