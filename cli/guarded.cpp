#include "cli/guarded.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/printable.h"
#include "cli/output.h"

namespace halfstep {
namespace {

struct Failure {
  ExitCode code;
  std::string message;
};

Failure failure_of_this_exception() {
  try {
    throw;
  } catch (const UsageError& e) {
    return {ExitCode::usage, e.what()};
  } catch (const Error& e) {
    return {ExitCode::error, e.what()};
  } catch (const std::filesystem::filesystem_error& e) {
    return {ExitCode::error, fmt::format("'{}': {}", e.path1().string(), e.code().message())};
  } catch (const std::bad_alloc&) {
    return {ExitCode::error, "there is not enough memory: choose a smaller batch"};
  } catch (const std::exception& e) {
    return {ExitCode::internal,
            fmt::format("internal error: {}\nplease report this with the command and the model", e.what())};
  }
}

}  // namespace

Format format_of(int argc, const char* const* argv) {
  return std::find(argv, argv + argc, std::string("--json")) != argv + argc ? Format::json : Format::text;
}

ExitCode guarded(const std::string& executable, Format format, const std::function<ExitCode()>& command) {
  // What cannot be written is told by the write.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    const ExitCode code = command();
    finish_output();
    return code;
  } catch (...) {
    const auto [code, message] = failure_of_this_exception();
    const std::vector<std::string> lines = lines_of(message);
    if (format == Format::json)
      print_err("{}\n", json_text({{"error", message}, {"problems", lines}, {"exit_code", static_cast<int>(code)}}));
    else
      for (const std::string& line : lines) print_err("{}: {}\n", executable, line);
    return code;
  }
}

}  // namespace halfstep
