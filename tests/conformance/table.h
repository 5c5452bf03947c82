// docs/conformance.md: one section a suite, one row an operator.
#pragma once

#include <map>
#include <set>
#include <string>

namespace halfstep::conformance {

struct Outcome {
  enum Kind { agrees, refused, wrong } kind = agrees;
  std::string why;  // of a refusal: the importer's words
};
using Outcomes = std::map<std::string, Outcome>;  // by case

// The operator that a refusal is about, or "" where it is about a type.
std::string refused_operator(const std::string& why);
// A refusal without the names of this one model.
std::string reason(const std::string& why);

// The section's text, heading included. `operators` holds those of every case.
std::string section(const std::string& suite, const Outcomes& outcomes,
                    const std::map<std::string, std::set<std::string>>& operators);
// The page with the section added or replaced; sections stay in order.
std::string with_section(const std::string& page, const std::string& suite, const std::string& text);
// The section as the page has it, or "".
std::string section_of(const std::string& page, const std::string& suite);

}  // namespace halfstep::conformance
