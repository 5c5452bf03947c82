// Shards as WebDataset writes them: tar archives whose members of one name but for its ending are one sample.
#pragma once

#include "data/readers.h"

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

// Images (.jpg, .jpeg, .png), and labels where every sample has a .cls, a whole number as text. The images' bytes are
// read where they lie, when they are needed.
Dataset open_tar_shards(const DataRequest& request);

}  // namespace halfstep
