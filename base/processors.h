// How many processors this process may use.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace halfstep {

// Those of its affinity mask, and no more than its control groups' quota lets run at once; at least 1.
int usable_processors();

// The smallest quota of processors along the path of the groups that `groups` (the text of /proc/self/cgroup) names,
// below `mount` (/sys/fs/cgroup), of version 1 or 2; rounded up. nullopt: no limit, or none that is readable.
std::optional<int> processor_quota(std::string_view groups, const std::filesystem::path& mount);

}  // namespace halfstep
