#include "tests/fuzz/case_text.h"

#include <sstream>

#include "base/error.h"
#include "ir/op.h"
#include "ir/text.h"

namespace halfstep::fuzz {
namespace {

constexpr std::string_view kValues = "// values ";

}  // namespace

std::string print_case(const FuzzCase& fuzz_case) {
  std::string text;
  for (const Node& node : fuzz_case.graph.nodes())
    if (is_leaf(*node.op)) {
      const std::string& name = node.attributes.text("name");
      text += std::string(kValues) + name + ": " + to_string(fuzz_case.values.at(name)) + "\n";
    }
  return text + print(fuzz_case.graph);
}

FuzzCase parse_case(std::string_view text) {
  FuzzCase parsed{parse_graph(text), {}};
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(": ");
    if (!line.starts_with(kValues)) continue;
    if (colon == std::string::npos) throw Error("'// values NAME: DISTRIBUTION SEED' expected, found '" + line + "'");
    parsed.values[line.substr(kValues.size(), colon - kValues.size())] = parse_values(line.substr(colon + 2));
  }
  return parsed;
}

}  // namespace halfstep::fuzz
