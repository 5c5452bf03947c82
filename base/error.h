// Two families of errors: the user's (model, data, option, machine) and ours.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

namespace halfstep {

// The user's model, data, option or machine is at fault. The message starts in lower case, has no full stop, names the
// place, what was expected and found, and what to do: "matmul 'fc1': inner dimensions differ: 784 and 512".
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
  // Several problems found in one run; what() joins them with newlines.
  explicit Error(std::vector<std::string> problems);
};

// A broken invariant of ours. what() carries the source location.
class InternalError : public std::logic_error {
 public:
  explicit InternalError(const std::string& message, std::source_location where = std::source_location::current());
};

// Checks an invariant of ours; never used on input of the user.
inline void require(bool condition, const char* message, std::source_location where = std::source_location::current()) {
  if (!condition) [[unlikely]]
    throw InternalError(message, where);
}

// Collects every problem of one input, so that a run reports all of them.
class Problems {
 public:
  void add(std::string message) { messages_.push_back(std::move(message)); }
  bool empty() const { return messages_.empty(); }
  const std::vector<std::string>& messages() const { return messages_; }
  void throw_if_any() const {
    if (!messages_.empty()) throw Error(messages_);
  }

 private:
  std::vector<std::string> messages_;
};

// The candidate nearest to `word` by edit distance if it is near enough to suggest, else "".
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace halfstep
