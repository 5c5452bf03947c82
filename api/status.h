// What both API libraries share: statuses, lists of texts, and the one place where exceptions become statuses.
#pragma once

#include <filesystem>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "include/halfstep/halfstep.h"

struct halfstep_status {
  halfstep_code code = HALFSTEP_OK;
  std::string message, node, hint;
};

struct halfstep_strings {
  std::vector<std::string> texts;
};

namespace halfstep {

// The caller has broken the contract of a function.
class ArgumentError : public Error {
 public:
  using Error::Error;
};

// The ONNX node that a message names as its place, or "". Each library knows its own messages: the runtime's name none.
std::string node_of(const std::string& message);
// What to do, as the lines of a message end: "give another batch"; "" where none says so.
std::string hint_of(const std::string& message);
// What the exception that is being handled becomes. Where there is no memory the status is static.
halfstep_status* status_of_exception() noexcept;

// Runs the body of a function of the table.
template <typename Body>
halfstep_status* guarded(const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (...) {
    return status_of_exception();
  }
}

// Each throws ArgumentError "NAME is NULL".
template <typename T>
T& given(T* pointer, const char* name) {
  if (pointer == nullptr) throw ArgumentError(std::string(name) + " is NULL");
  return *pointer;
}
std::string given_text(const char* text, const char* name);
// Pairs of key and value.
std::vector<std::pair<std::string, std::string>> given_options(const halfstep_option* options, size_t count);

}  // namespace halfstep
