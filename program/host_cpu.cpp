#include "program/host_cpu.h"

#include <fmt/format.h>
#include <zlib.h>

#include <fstream>
#include <optional>

#include "base/error.h"

namespace halfstep {
namespace {

// The value of the first line "key : value".
std::string cpuinfo(std::string_view key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (line.starts_with(key) && colon != std::string::npos && colon + 2 <= line.size()) return line.substr(colon + 2);
  }
  return "";
}

// nullopt: not a generic level.
std::optional<bool> runs_level(const std::string& architecture) {
  if (architecture == "x86-64") return true;
  if (architecture == "x86-64-v2") return __builtin_cpu_supports("x86-64-v2") != 0;
  if (architecture == "x86-64-v3") return __builtin_cpu_supports("x86-64-v3") != 0;
  if (architecture == "x86-64-v4") return __builtin_cpu_supports("x86-64-v4") != 0;
  return std::nullopt;
}

}  // namespace

std::string host_fingerprint() {
  const std::string flags = cpuinfo("flags");
  const auto sum = crc32_z(0, reinterpret_cast<const Bytef*>(flags.data()), flags.size());
  return fmt::format("{} {:08x}", cpuinfo("model name"), sum);
}

void check_host_runs(const CompiledModel& model) {
  const std::optional<bool> runs = runs_level(model.architecture);
  if (runs && !*runs)
    throw Error(
        fmt::format("the step is compiled for CPU level '{}', which this CPU ({}) does not have: compile it here "
                    "or for a lower level",
                    model.architecture, host_fingerprint()));
  const std::string& host = model.notes.host;
  if (!runs && !host.empty() && host != host_fingerprint())
    throw Error(
        fmt::format("the step is compiled for CPU '{}' ({}), this one is {}: compile it here, or for a level "
                    "such as x86-64-v3 that travels",
                    model.architecture, host, host_fingerprint()));
}

}  // namespace halfstep
