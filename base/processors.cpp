#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace halfstep {
namespace {

namespace fs = std::filesystem;

// Machines have more processors than a cpu_set_t holds.
int processors_of_affinity() {
  for (size_t most = CPU_SETSIZE; most <= (size_t{1} << 20); most *= 2) {
    std::vector<cpu_set_t> set(most / CPU_SETSIZE);
    const size_t bytes = set.size() * sizeof(cpu_set_t);
    if (::sched_getaffinity(0, bytes, set.data()) == 0) return CPU_COUNT_S(bytes, set.data());
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

std::optional<int> whole_processors(double quota, double period) {
  if (!(quota > 0) || !(period > 0)) return std::nullopt;  // -1: no limit
  return static_cast<int>(std::clamp(std::ceil(quota / period), 1.0, 1e6));
}

// "max 100000" or "150000 100000".
std::optional<int> unified_quota(const fs::path& group) {
  double quota = 0, period = 0;
  if (!(std::ifstream(group / "cpu.max") >> quota >> period)) return std::nullopt;
  return whole_processors(quota, period);
}

std::optional<int> quota_of_version_1(const fs::path& group) {
  double quota = 0, period = 0;
  if (!(std::ifstream(group / "cpu.cfs_quota_us") >> quota)) return std::nullopt;
  if (!(std::ifstream(group / "cpu.cfs_period_us") >> period)) return std::nullopt;
  return whole_processors(quota, period);
}

bool lists(const std::string& controllers, const std::string& wanted) {
  std::istringstream items(controllers);
  for (std::string item; std::getline(items, item, ',');)
    if (item == wanted) return true;
  return false;
}

}  // namespace

std::optional<int> processor_quota(std::string_view groups, const fs::path& mount) {
  std::optional<int> least;
  // Inside a container the path may be the host's: then only the mount's root is there.
  const auto see = [&](const fs::path& root, const std::string& path, std::optional<int> (*quota_of)(const fs::path&)) {
    fs::path group = fs::path(path).relative_path().lexically_normal();
    while (true) {
      if (const std::optional<int> quota = quota_of(root / group)) least = std::min(least.value_or(*quota), *quota);
      if (group.empty() || group == ".") return;
      group = group.parent_path();
    }
  };
  std::istringstream lines{std::string(groups)};
  for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) see(mount, path, unified_quota);
    if (!lists(controllers, "cpu")) continue;
    see(mount / controllers, path, quota_of_version_1);
    see(mount / "cpu", path, quota_of_version_1);
  }
  return least;
}

int usable_processors() {
  static const int processors = [] {
    std::ostringstream groups;
    groups << std::ifstream("/proc/self/cgroup").rdbuf();
    const int all = std::max(1, processors_of_affinity());
    return std::min(all, processor_quota(groups.str(), "/sys/fs/cgroup").value_or(all));
  }();
  return processors;
}

}  // namespace halfstep
