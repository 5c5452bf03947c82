#include "cli/page/embed.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/output.h"

namespace halfstep {
namespace {

void put(std::string& page, std::string_view mark, std::string_view text) {
  const size_t at = page.find(mark);
  require(at != std::string::npos, "the page has a place for each of its parts");
  page.replace(at, mark.size(), text);
}

std::string embedded_json(const nlohmann::json& data) {
  std::string text;
  for (const char c : json_text(data)) {
    if (c == '<')
      text += "\\u003c";
    else
      text += c;
  }
  return text;
}

}  // namespace

std::string page_of(std::string_view html, const std::string& css, const std::string& js, const nlohmann::json& data) {
  std::string page(html);
  put(page, "/*CSS*/", css);
  put(page, "/*JS*/", js);
  put(page, "/*DATA*/", embedded_json(data));
  return page;
}

}  // namespace halfstep
