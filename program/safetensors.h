// The safetensors file format: an 8-byte little-endian header length, a JSON header, dense row-major data.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/tensor.h"

namespace halfstep {

// No tensor can be called so: the format's own entry is.
inline constexpr std::string_view kReservedTensorName = "__metadata__";

struct Safetensors {
  FileTensors tensors;
  std::map<std::string, std::string> metadata;
};

// A tensor to be written, whose contents need not be in memory at once: given to a function piece by piece.
struct TensorSource {
  TensorType type;
  std::function<void(const std::function<void(std::span<const std::byte>)>&)> read;
};

// Written atomically (base/file.h). `written` sees the file's bytes in order.
void write_safetensors(const std::filesystem::path& path, const FileTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});
void write_safetensors(const std::filesystem::path& path, const std::map<std::string, TensorSource>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(std::span<const std::byte>)>& written);
// Throws Error naming the file and what is wrong: truncated, header too large or not JSON, unknown type, offsets that
// overlap, leave gaps, overflow or disagree with the shape. Sizes are checked before anything is allocated.
Safetensors read_safetensors(const std::filesystem::path& path);

}  // namespace halfstep
