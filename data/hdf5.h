// HDF5 files, read by the HDF5 library of the machine (1.10 or later), which is loaded as the first one is opened.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/sample_values.h"

namespace halfstep {

// "train.h5:/images" as file and dataset, "train.h5" as the file and "/"; nullopt: it names no .h5, .hdf5 or .hdf.
std::optional<std::pair<std::string, std::string>> hdf5_name(const std::string& specification);

// Names of the datasets at the file's root, sorted. Error where the library is not there, or cannot read it.
std::vector<std::string> hdf5_datasets(const std::string& file);

// Integers, floating numbers and h5py's truth values; of 16 bits as i32 and f32, unsigned of 32 as i64. What the file
// says of its size is held against what it stores. Beyond `memory` bytes samples are read as they are needed, one
// thread at a time, as the library wants it.
SampleValues read_hdf5(const std::string& file, const std::string& dataset, int64_t memory);

}  // namespace halfstep
