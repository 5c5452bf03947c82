#include "runtime/json_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace halfstep {

nlohmann::json parse_json(const std::string& text, int deepest) {
  const auto within = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > deepest) throw Error(fmt::format("JSON nested more than {} deep", deepest));
    return true;
  };
  return nlohmann::json::parse(text, within, false);
}

}  // namespace halfstep
