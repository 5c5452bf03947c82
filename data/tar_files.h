// Tar archives: their names, and where their members' bytes lie.
#pragma once

#include <string>
#include <vector>

#include "data/byte_source.h"

namespace halfstep {

// "shards-{000..009}.tar" as the ten names that it stands for; a name without braces is itself. Error for what is no
// range of numbers, or for more than a million names.
std::vector<std::string> expand_braces(const std::string& pattern);

// A member of an archive: where its bytes lie.
struct TarMember {
  std::string name;
  int64_t offset = 0, size = 0;
};
// The regular files in it, in their order. Error where it is cut off, corrupt or compressed.
std::vector<TarMember> read_tar_index(const DataFile& file);

}  // namespace halfstep
