#include "compiler/inspect/scopes.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace halfstep {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool is_number(const std::string& part) {
  return std::ranges::all_of(part, [](unsigned char c) { return std::isdigit(c) != 0; });
}

std::string joined(const std::vector<std::string>& scope) {
  std::string text;
  for (const std::string& part : scope) text += (text.empty() ? "" : "/") + part;
  return text;
}

}  // namespace

std::string scope_of(const std::string& name, const std::string& module) {
  std::vector<std::string> parts = module.empty() ? split(name, '/') : split(module, '.');
  if (module.empty() && !parts.empty()) parts.pop_back();
  std::vector<std::string> scope;
  for (std::string& part : parts) {
    if (is_number(part) && !scope.empty())
      scope.back() += "." + part;
    else
      scope.push_back(std::move(part));
  }
  return joined(scope);
}

std::vector<std::string> scopes_of_weights(const std::vector<std::string>& weights) {
  std::vector<std::string> scopes(weights.size());
  std::vector<std::string> before;  // of the last node with a weight
  size_t waiting = 0;               // the first node behind it
  for (size_t i = 0; i <= weights.size(); ++i) {
    const size_t dot = i < weights.size() ? weights[i].rfind('.') : std::string::npos;
    if (i < weights.size() && dot == std::string::npos) continue;
    const std::string scope = i < weights.size() ? scope_of("", weights[i].substr(0, dot)) : "";
    const std::vector<std::string> parts = split(scope, '/');
    const auto end = std::ranges::mismatch(before, parts).in1;
    const std::string around = joined({before.begin(), end});
    for (; waiting < i; ++waiting) scopes[waiting] = around;
    if (i < weights.size()) scopes[i] = scope, waiting = i + 1;
    before = parts;
  }
  return scopes;
}

}  // namespace halfstep
