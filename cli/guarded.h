// How both executables end: exit codes, and what is said of a failure.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace halfstep {

enum class ExitCode : int {
  success = 0,
  error = 1,          // the model, the data, an option or the machine; the message says which
  usage = 2,          // the command line
  internal = 3,       // a bug of ours
  not_ready = 4,      // check: the model has problems
  different = 5,      // diff: the assignments are not the same
  hung_up = 129,      // SIGHUP: a checkpoint was written
  interrupted = 130,  // SIGINT: likewise
  terminated = 143,   // SIGTERM: likewise
};

// Of a run that `signal` stopped.
constexpr ExitCode stopped_by(int signal) { return static_cast<ExitCode>(128 + signal); }

enum class Format : uint8_t { text, json };

// Whether --json is among the arguments, also where the rest cannot be understood.
Format format_of(int argc, const char* const* argv);

// A command line that cannot be understood; what() names the command and the nearest option.
class UsageError : public std::runtime_error {
 public:
  explicit UsageError(const std::string& message) : std::runtime_error(message) {}
};

// Runs `command` of `executable` ("halfstep"); a failure is told on stderr, one line for each problem, and is its exit
// code. No write ends the process by SIGPIPE or SIGXFSZ.
ExitCode guarded(const std::string& executable, Format format, const std::function<ExitCode()>& command);

}  // namespace halfstep
