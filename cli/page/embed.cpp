#include "cli/page/embed.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
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

std::optional<std::string> refusal_of_page(const std::string& path, std::string_view option) {
  constexpr std::string_view kMark = "<meta name=\"generator\" content=\"halfstep\">";
  constexpr size_t kBegin = 512;  // in which every page has it
  std::error_code unknown;
  if (!std::filesystem::is_regular_file(path, unknown)) return std::nullopt;
  std::string begin(kBegin, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(begin.data(), kBegin);
  if (file.gcount() == 0 || begin.find(kMark) != std::string::npos) return std::nullopt;
  return fmt::format("'{}' is there, is no page of halfstep's and would be written over: name another file with {}",
                     path, option);
}

}  // namespace halfstep
