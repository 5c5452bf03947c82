// The options of load_step.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/executor.h"

namespace halfstep {

struct LoadOptions {
  std::string device = "auto", trust;
  std::optional<uint64_t> seed;
  ExecutorOptions executor;
};

// Throws ArgumentError listing every key that is unknown, comes twice or has a value that makes no sense.
LoadOptions load_options(const std::vector<std::pair<std::string, std::string>>& options);

}  // namespace halfstep
