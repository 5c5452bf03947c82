#include "tests/conformance/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>

namespace halfstep::conformance {
namespace {

constexpr const char* kPreface =
    "# ONNX conformance\n\n"
    "Written by `conformance_test` (`UPDATE_EXPECTED=1`). Every case is imported, interpreted, compiled and executed; "
    "its\n"
    "outputs are the suite's to a thousandth, or it is refused by name before anything runs. None is wrong. Operands "
    "that\n"
    "must be known when a model is compiled (shapes, axes, trip counts, bounds) are given as initializers where a "
    "case\n"
    "feeds them; a sequence is given as its elements. Outputs of random operators are checked against what the "
    "operator\n"
    "promises. `test_adam_multiple` is given the epsilon of its outputs, which its node leaves out. A case counts for "
    "every\n"
    "operator in it.\n";

std::string heading(const std::string& suite) { return "\n## " + suite + "\n"; }

struct Row {
  int agree = 0;
  std::map<std::string, int> refused;  // by reason
};

std::string row_text(const std::string& name, const Row& row) {
  int refused = 0;
  std::string reasons;
  for (const auto& [why, count] : row.refused) {
    refused += count;
    reasons += (reasons.empty() ? "" : "; ") + why + (row.refused.size() > 1 ? fmt::format(" ({})", count) : "");
  }
  return fmt::format("| {} | {} | {} | {} |\n", name, row.agree, refused, reasons);
}

}  // namespace

std::string refused_operator(const std::string& why) {
  std::smatch match;
  static const std::regex place("^(input|output|tensor|branch) '");
  if (std::regex_search(why, match, place)) return "";
  static const std::regex pattern("^(?:operator |node )?([A-Za-z0-9_.]+) (?:'[^']*': |is )");
  return std::regex_search(why, match, pattern) ? match[1].str() : "";
}

std::string reason(const std::string& why) {
  std::string text = why.substr(0, why.find('\n'));
  if (!refused_operator(why).empty())
    text = std::regex_replace(text, std::regex("^(node )?[a-zA-Z0-9_.]+ '[^']*': "), "");
  text = std::regex_replace(text, std::regex("^operator \\S+ is "), "");
  text = std::regex_replace(text, std::regex("^(input|output|tensor|branch) '[^']*': "), "$1: ");
  text = std::regex_replace(text, std::regex("; rewrite the model without it"), "");
  text = std::regex_replace(text, std::regex("( \\(nodes?) '[^)]*\\)$"), "");
  text = std::regex_replace(text, std::regex("(operand|result) (\\w+ )?'[^']*'"), "$1 $2");
  return std::regex_replace(text, std::regex("\\|"), "/");
}

std::string section(const std::string& suite, const Outcomes& outcomes,
                    const std::map<std::string, std::set<std::string>>& operators) {
  std::map<std::string, Row> rows;
  Row types;
  int agree = 0;
  for (const auto& [name, outcome] : outcomes) {
    agree += outcome.kind == Outcome::agrees;
    if (outcome.kind == Outcome::agrees)
      for (const std::string& op : operators.at(name)) ++rows[op].agree;
    if (outcome.kind != Outcome::refused) continue;
    const std::string op = refused_operator(outcome.why);
    ++(op.empty() ? types : rows[op]).refused[reason(outcome.why)];
  }
  std::string text = heading(suite);
  text += fmt::format("\n{} cases: {} agree, {} are refused.\n", outcomes.size(), agree,
                      outcomes.size() - static_cast<size_t>(agree));
  text += "\n| operator | agree | refused | reason |\n|---|---|---|---|\n";
  for (const auto& [name, row] : rows) text += row_text(name, row);
  if (!types.refused.empty()) text += row_text("(types)", types);
  return text;
}

std::string section_of(const std::string& page, const std::string& suite) {
  const size_t begin = page.find(heading(suite));
  if (begin == std::string::npos) return "";
  return page.substr(begin, page.find("\n## ", begin + 1) - begin);
}

std::string with_section(const std::string& page, const std::string& suite, const std::string& text) {
  std::map<std::string, std::string> sections;
  for (size_t at = page.find("\n## "); at != std::string::npos; at = page.find("\n## ", at + 1)) {
    const std::string name = page.substr(at + 4, page.find('\n', at + 1) - at - 4);
    sections[name] = section_of(page, name);
  }
  sections[suite] = text;
  std::string result = kPreface;
  for (const auto& [name, body] : sections) result += body;
  return result;
}

}  // namespace halfstep::conformance
