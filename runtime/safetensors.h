// The safetensors file format: an 8-byte little-endian header length, a JSON header, dense row-major data.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/tensor.h"

namespace halfstep {

struct Safetensors {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
};

// Written atomically (base/file.h).
void write_safetensors(const std::filesystem::path& path, const Safetensors& content);
// Throws Error naming the file and what is wrong: truncated, header too large or not JSON, unknown type, offsets that
// overlap, leave gaps, overflow or disagree with the shape. Sizes are checked before anything is allocated.
Safetensors read_safetensors(const std::filesystem::path& path);

}  // namespace halfstep
