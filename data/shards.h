// Shards as WebDataset writes them: tar archives whose members of one name up to its first dot are one sample.
#pragma once

#include "data/readers.h"

namespace halfstep {

// Images (.jpg, .jpeg, .png); arrays (NAME.npy by its name, .npy as "npy"), of one type each; labels where every sample
// has a .cls, a whole number as text, or, where the options name label columns, of those fields of its .json. Images
// and what of the arrays goes beyond data_memory are read where they lie, when they are needed.
Dataset open_tar_shards(const DataRequest& request);

}  // namespace halfstep
