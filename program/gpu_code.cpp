#include "program/gpu_code.h"

#include <fmt/format.h>

#include <charconv>

#include "base/error.h"

namespace halfstep {

GpuArchitecture parse_gpu_architecture(std::string_view text) {
  GpuArchitecture architecture;
  const char* const end = text.data() + text.size();
  if (text.starts_with("sm_")) {
    const auto [rest, error] = std::from_chars(text.data() + 3, end, architecture.capability);
    const std::string_view suffix(rest, static_cast<size_t>(end - rest));
    architecture.specific = suffix == "a";
    if (error == std::errc() && architecture.capability > 0 && (suffix.empty() || architecture.specific))
      return architecture;
  }
  throw Error(fmt::format("'{}' is no CUDA architecture such as sm_80", text));
}

std::string fitting_cubin(const CompiledModel& model, int capability) {
  std::string best;
  int newest = 0;
  for (const auto& [name, code] : model.cubins) {
    const GpuArchitecture a = parse_gpu_architecture(name);
    const bool runs =
        a.specific ? a.capability == capability : a.capability / 10 == capability / 10 && a.capability <= capability;
    if (!runs || a.capability < newest || (a.capability == newest && !a.specific)) continue;
    best = name, newest = a.capability;
  }
  return best;
}

}  // namespace halfstep
