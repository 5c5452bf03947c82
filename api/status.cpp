#include "api/status.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <sstream>
#include <string_view>

#include "base/printable.h"

namespace halfstep {
namespace {

halfstep_status* out_of_memory() {
  // Short enough to need no memory of its own.
  static halfstep_status status{HALFSTEP_OUT_OF_MEMORY, "out of memory", "", ""};
  return &status;
}

// The part of a line that says what to do: it follows ": ", "; " or ", ".
std::string_view remedy_of(std::string_view line) {
  constexpr std::array<std::string_view, 24> kBeginnings{
      "call",    "choose", "compile", "delete", "did you mean", "export",    "give",  "go on",
      "install", "leave",  "load",    "lower",  "name",         "pass",      "put",   "raise",
      "remove",  "run",    "save",    "set",    "start",        "there are", "train", "use"};
  for (size_t at = line.find(' '); at != std::string_view::npos; at = line.find(' ', at + 1)) {
    if (at == 0 || std::string_view(":;,").find(line[at - 1]) == std::string_view::npos) continue;
    const std::string_view rest = line.substr(at + 1);
    const bool says = std::ranges::any_of(kBeginnings, [&](std::string_view beginning) {
      if (!rest.starts_with(beginning)) return false;
      return rest.size() == beginning.size() || std::isalpha(static_cast<unsigned char>(rest[beginning.size()])) == 0;
    });
    if (says) return rest;
  }
  return {};
}

// What a name holds reaches no terminal as it is.
halfstep_status* make_status(halfstep_code code, const char* message) noexcept try {
  const std::string shown = printable(message, Lines::kept);
  return new halfstep_status{code, shown, node_of(message), hint_of(shown)};
} catch (...) {
  return out_of_memory();
}

}  // namespace

std::string hint_of(const std::string& message) {
  std::string hints;
  std::istringstream lines(message);
  for (std::string line; std::getline(lines, line);) {
    const std::string_view hint = remedy_of(line);
    if (!hint.empty()) hints += (hints.empty() ? "" : "\n") + std::string(hint);
  }
  return hints;
}

halfstep_status* status_of_exception() noexcept {
  try {
    throw;
  } catch (const ArgumentError& e) {
    return make_status(HALFSTEP_INVALID_ARGUMENT, e.what());
  } catch (const Error& e) {
    return make_status(HALFSTEP_ERROR, e.what());
  } catch (const std::filesystem::filesystem_error& e) {
    return make_status(HALFSTEP_ERROR, e.what());
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& e) {
    return make_status(HALFSTEP_INTERNAL_ERROR, e.what());
  } catch (...) {
    return make_status(HALFSTEP_INTERNAL_ERROR, "an exception of unknown type");
  }
}

std::string given_text(const char* text, const char* name) { return &given(text, name); }

std::vector<std::pair<std::string, std::string>> given_options(const halfstep_option* options, size_t count) {
  if (count > 0) given(options, "options");
  std::vector<std::pair<std::string, std::string>> pairs;
  for (size_t i = 0; i < count; ++i)
    pairs.emplace_back(given_text(options[i].key, "the key of an option"),
                       given_text(options[i].value, "the value of an option"));
  return pairs;
}

}  // namespace halfstep
