// One HTML page of its parts.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace halfstep {

// `html` has a place for each: /*CSS*/, /*JS*/ and /*DATA*/. No text of the data's can end the element that it is in.
std::string page_of(std::string_view html, const std::string& css, const std::string& js, const nlohmann::json& data);

// Why no page is to be written there, which `option` names: another file is.
std::optional<std::string> refusal_of_page(const std::string& path, std::string_view option = "--html");

}  // namespace halfstep
