#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <new>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/printable.h"
#include "cli/command_line.h"
#include "cli/output.h"
#include "compiler/idle_keys.h"
#include "compiler/session.h"
#include "runtime/signals.h"

namespace halfstep {
namespace {

ExitCode run(const CommandLine& line) {
  if (line.command == "info") return run_info(line.options);
  using Run = ExitCode (*)(const Recipe&, const CommandOptions&);
  const std::map<std::string, Run> commands{{"check", run_check}, {"inspect", run_inspect},    {"compile", run_compile},
                                            {"train", run_train}, {"eval", run_eval},          {"export", run_export},
                                            {"bench", run_bench}, {"gradients", run_gradients}};
  const Recipe recipe = recipe_of(line);
  // Beside a compiled step's own keys, which are not known yet, they may have one.
  if (line.options.format == Format::text && !is_compiled_directory(recipe.model))
    for (const std::string& sentence : idle_keys(recipe)) print_err("halfstep: note: {}\n", sentence);
  return commands.at(line.command)(recipe, line.options);
}

// One line for each problem.
ExitCode fail(ExitCode code, const std::string& message, Format format) {
  const std::vector<std::string> lines = lines_of(message);
  if (format == Format::json)
    print_err("{}\n", json_text({{"error", message}, {"problems", lines}, {"exit_code", static_cast<int>(code)}}));
  else
    for (const std::string& line : lines) print_err("halfstep: {}\n", line);
  return code;
}

ExitCode guarded(int argc, char** argv) {
  const Format format = format_of(argc, argv);
  try {
    const std::optional<CommandLine> line = parse_command_line(argc, argv);
    const ExitCode code = line ? run(*line) : ExitCode::success;
    finish_output();
    return code;
  } catch (const UsageError& e) {
    return fail(ExitCode::usage, e.what(), format);
  } catch (const Error& e) {
    return fail(ExitCode::error, e.what(), format);
  } catch (const std::filesystem::filesystem_error& e) {
    return fail(ExitCode::error, fmt::format("'{}': {}", e.path1().string(), e.code().message()), format);
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::error, "there is not enough memory: choose a smaller batch", format);
  } catch (const std::exception& e) {
    return fail(ExitCode::internal,
                fmt::format("internal error: {}\nplease report this with the command and the model", e.what()), format);
  }
}

}  // namespace
}  // namespace halfstep

int main(int argc, char** argv) {
  halfstep::open_standard_descriptors();
  const halfstep::SignalThread signals;
  // What cannot be written is told by the write.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  return static_cast<int>(halfstep::guarded(argc, argv));
}
