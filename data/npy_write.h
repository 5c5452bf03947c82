// Tensors as NumPy files.
#pragma once

#include <filesystem>

#include "base/tensor.h"

namespace halfstep {

// Both replace `path` in one step.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);
// Members are stored, as numpy.savez does. Error above 4 GiB, which take another form of archive.
void write_npz(const std::filesystem::path& path, const FileTensors& tensors);

}  // namespace halfstep
