// Tensors as NumPy files.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/tensor.h"

namespace halfstep {

// Both replace `path` in one step.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);
// Members are stored, as numpy.savez does. Error above 4 GiB, which take another form of archive.
void write_npz(const std::filesystem::path& path, const FileTensors& tensors);

// Elements that come piece by piece, `type.byte_count()` bytes of them.
void write_npy(const std::filesystem::path& path, const TensorType& type, const std::function<void(FileSink&)>& fill);

// An archive whose arrays come side by side, piece by piece: each waits in a file of its own beside `path`, which is
// gone at the end.
class NpzSpool {
 public:
  // Error above 4 GiB.
  NpzSpool(const std::filesystem::path& path, std::vector<std::pair<std::string, TensorType>> members);
  ~NpzSpool();
  NpzSpool(const NpzSpool&) = delete;
  NpzSpool& operator=(const NpzSpool&) = delete;

  void add(size_t member, std::span<const std::byte> bytes);
  void finish();  // replaces `path`

 private:
  struct Piece;
  std::filesystem::path path_, directory_;
  std::vector<std::unique_ptr<Piece>> pieces_;
};

}  // namespace halfstep
