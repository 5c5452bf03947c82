#include "compiler/policy_text.h"

#include <fmt/format.h>

#include "compiler/doctor.h"
#include "frontend/import/operator_names.h"
#include "ir/op.h"

namespace halfstep {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      result += std::string("\\") + c;
    else if (byte < 0x20 || byte == 0x7f)
      result += fmt::format("\\u{:04x}", byte);
    else
      result += c;
  }
  return result + "\"";
}

std::string rule(const std::string& selector, const std::string& pattern, const std::string& precision,
                 const std::string& reason) {
  std::string text = fmt::format("\n[[rule]]\n{} = {}\nprecision = {}\n", selector, quoted(pattern), quoted(precision));
  if (!reason.empty()) text += fmt::format("reason = {}\n", quoted(reason));
  return text;
}

// The preset, unless the recipe's policy names one of its own, and that policy.
std::string extended(const Recipe& recipe, const std::filesystem::path& folder) {
  const std::string preset = quoted(recipe.preset == "default" ? "halfstep" : recipe.preset);
  if (recipe.policy.empty()) return preset;
  const std::string policy = quoted(std::filesystem::proximate(recipe.policy, folder).string());
  return recipe.given.contains("preset") ? preset + ", " + policy : policy;
}

}  // namespace

std::string policy_text(const Recipe& recipe, const std::vector<std::pair<std::string, std::string>>& denied,
                        const std::vector<std::string>& remarks, const std::filesystem::path& folder) {
  std::string text;
  for (const std::string& line : remarks) text += "# " + line + "\n";
  text += fmt::format("version = 1\nextends = [{}]\n", extended(recipe, folder));
  const auto add = [&](const std::vector<std::string>& patterns, const std::string& precision,
                       const std::string& list) {
    for (const std::string& pattern : patterns) {
      const bool is_operator = find_op(pattern) != nullptr || onnx_operator_names().contains(pattern);
      text += rule(is_operator ? "operator" : "node", pattern, precision, "the recipe's " + list);
    }
  };
  add(recipe.allow, "low", "allow"), add(recipe.deny, "fp32", "deny"), add(recipe.infer, "follow", "infer");
  for (const auto& [node, reason] : denied) text += rule("node", as_pattern(node), "fp32", reason);
  return text;
}

}  // namespace halfstep
